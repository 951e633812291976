"""The ablations as one picture for the model card."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .results import BLIND
from .tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT, GRID = "#262a36", "#6f6d6b", "#e2dcd2"
ACCENT, COLORS, MARK = "#d9603f", ("#427a94", "#8fb8c9", "#6b8f5e", "#b9c9a5"), "#e3ad4a"


def check_can_draw() -> None:
    """
    Before what takes long.

    Raises:
        ImportError: If matplotlib is missing.
    """
    if find_spec("matplotlib") is None:
        raise ImportError("Drawing needs matplotlib: pip install 'fila-video[dataset]'.")


def draw(tables: list[Table], file: str | Path) -> None:
    """
    A panel for each table: of each row a bar for each set of questions, with its 95% interval; a diamond for the share
    of events that a selection finds, where rows differ in it; a dashed line for the blind score.

    Raises:
        ValueError: Where there is nothing to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not tables:
        raise ValueError("There are no tables to draw.")
    heights = [len(table.rows) * (0.18 + 0.24 * len(table.sets)) + 1.3 for table in tables]
    figure = Figure(figsize=(8.6, sum(heights)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(h_pad=0.12)
    axes = figure.subplots(len(tables), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axis, table in zip(axes, tables, strict=True):
        _panel(axis, table)
    figure.savefig(file, dpi=160, metadata={"Software": None})


def _panel(axis: "Axes", table: Table) -> None:
    labels = list(table.sets)
    thickness = 0.72 / len(labels)
    for number, label in enumerate(labels):
        values = [table.accuracy(row, label) for row in table.rows]
        if None in values:  # nothing but captions is asked
            continue
        places = [row + (number - (len(labels) - 1) / 2) * thickness for row in range(len(values))]
        color = COLORS[number % len(COLORS)]
        best = max(values)[0] if len(labels) == 1 else None
        _bars(axis, places, values, thickness, [ACCENT if value[0] == best else color for value in values])
        if len(labels) > 1:
            axis.barh(0, 0, color=color, label=label)
        blind = max(table.accuracy(row, label, BLIND)[0] for row in table.rows)
        axis.axvline(
            100 * blind, color=FAINT, linestyle=(0, (4, 3)), linewidth=1.3, label=None if number else "blind, at most"
        )
        recalls = [table.recall(row, label, "found", "events") for row in table.rows]
        recalls = [100 * (recall[0] if isinstance(recall, tuple) else recall or 0) for recall in recalls]
        if len(set(recalls)) > 1:
            style = {"marker": "D", "s": 36, "color": MARK, "edgecolor": INK, "linewidth": 0.7, "zorder": 5}
            axis.scatter(recalls, places, clip_on=False, label=None if number else "events found", **style)
    _dress(axis, table)


def _bars(axis: "Axes", places: list[float], values: list[tuple], thickness: float, colors: list[str]) -> None:
    middles = [100 * middle for middle, _, _ in values]
    errors = [
        [100 * (middle - low) for middle, low, _ in values],
        [100 * (high - middle) for middle, _, high in values],
    ]
    axis.barh(places, middles, height=0.92 * thickness, color=colors)
    axis.errorbar(middles, places, xerr=errors, fmt="none", ecolor=INK, capsize=2.5, linewidth=1.1)
    for place, middle in zip(places, middles, strict=True):  # beside the axis, where nothing is drawn over them
        axis.text(103, place, f"{middle:.1f}", va="center", ha="left", color=INK, fontsize=9, fontweight="bold")


def _dress(axis: "Axes", table: Table) -> None:
    from matplotlib.transforms import ScaledTranslation

    axis.set_yticks(range(len(table.rows)), [row["label"] for row in table.rows], color=INK)
    axis.invert_yaxis()
    axis.set_xlim(0, 101)
    axis.set_xticks(range(0, 101, 20))
    axis.set_xlabel("right answers (%), 95% intervals", color=FAINT, fontsize=9, loc="left")
    axis.set_title(table.title, loc="left", color=INK, fontsize=11, fontweight="bold", pad=8)
    axis.grid(axis="x", color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(axis="x", length=0, labelsize=9, colors=FAINT)
    axis.tick_params(axis="y", length=0, labelsize=9.5)
    for side in axis.spines.values():
        side.set_visible(False)
    # Under the label of the axis, in points from its lower right corner.
    corner = axis.transAxes + ScaledTranslation(0, -30 / 72, axis.figure.dpi_scale_trans)
    axis.legend(
        loc="upper right",
        bbox_to_anchor=(1.09, 0.0),  # as far as the figures reach
        bbox_transform=corner,
        ncols=4,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        borderaxespad=0,
        handlelength=1.6,
        columnspacing=1.4,
    )


__all__ = ["check_can_draw", "draw"]
