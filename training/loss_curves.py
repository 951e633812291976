r"""
Draws the losses of the stages of a training, from the `log.jsonl` that each leaves behind.

    python -m fila_video.training.loss_curves OUTPUT.png RUN [RUN ...]
"""

import argparse
import sys
from pathlib import Path

from ..long_video.json_records import read_own_lines


def read_losses(run: str | Path) -> tuple[list[int], list[float]]:
    """
    The steps and losses of a run; of a step that was repeated after a break, the later one.

    Raises:
        ValueError: If the run's log has none, or a line, other than a torn last one, that is not valid JSON.
    """
    path = Path(run) / "log.jsonl"
    losses = {line["step"]: line["loss"] for line in read_own_lines(path, may_be_torn=True) if "loss" in line}
    if not losses:
        raise ValueError(f"{path} has no loss: the run has not come to its first `logging_steps`.")
    steps = sorted(losses)
    return steps, [losses[step] for step in steps]


def draw(runs: list[str | Path], output: str | Path) -> None:
    """One small plot a run, in their order, with a logarithmic loss."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(len(runs), 6)
    rows = -(-len(runs) // columns)
    size = (2.6 * columns, 2.6 * rows)
    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(runs) :]:
        axis.remove()
    for axis, run in zip(axes.flat, runs, strict=False):
        axis.plot(*read_losses(run), linewidth=1.5)
        axis.set(title=Path(run).name, xlabel="step", yscale="log")
        axis.grid(alpha=0.3, which="both")
    for axis in axes[:, 0]:
        axis.set_ylabel("loss")
    figure.savefig(output, dpi=130)
    pyplot.close(figure)


def main() -> int:
    """Exit status 0, or 2 with one line on standard error for wrong input."""
    parser = argparse.ArgumentParser(description="Draw the losses of a training's stages.")
    parser.add_argument("output", help="the picture")
    parser.add_argument("runs", nargs="+", help="folders of the stages, in their order")
    args = parser.parse_args()
    try:
        draw(args.runs, args.output)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"loss_curves: {' '.join(str(error).split())}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
