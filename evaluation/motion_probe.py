r"""
What merging keeps of three frames: how a thing moves, its color and its shape, read off the merged tokens (table 3).

    python -m fila_video.evaluation.motion_probe --model . --work FOLDER

Things travel left, right, up or down through exactly one scene of three frames, so that their way lies between the
frames and nowhere else. The vision tower stays as it is. Merger and projector begin anew in every row, and a linear
layer on the scene's tokens takes the place of the language model. So the figures say what the tokens carry, not what a
language model makes of it. The films are made in `--work` and kept.
"""

import argparse
import copy
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm, trange
from transformers import get_cosine_schedule_with_warmup, set_seed

from ..commands.loading import DEFAULT_MODEL, load_model, quiet
from ..configuration_fila_video import FilaVideoConfig, num_visual_tokens
from ..long_video.json_records import read_json_records
from ..modeling_fila_video import FilaVideoForConditionalGeneration
from ..processing_fila_video import FilaVideoProcessor
from ..scene_merging_fila_video import visual_tokens
from ..toy_world.make_videos import make_videos
from ..toy_world.sets import GRID, Settings
from ..toy_world.world import COLORS, SHAPES, TRAVELS
from .curves import FILMS, write
from .intervals import accuracy, difference
from .results import markdown, percent

SCENE_SIZE = 3
ANSWERS = {"motion": TRAVELS, "color": tuple(COLORS), "shape": SHAPES}
# By label: the merger, and the frames of a scene that it is given.
ROWS = {
    "the middle frame alone": ("mean", slice(1, 2)),
    "temporal averaging": ("mean", slice(None)),
    "attention pooling": ("attention", slice(None)),
    "BSM": ("bsm", slice(None)),
    "weighted fusion": ("weighted", slice(None)),
    "all three frames, three times the tokens": (None, slice(None)),
}
REFERENCE = "temporal averaging"
TAUGHT = ("scene_merger", "multi_modal_projector")


@dataclass
class Scenes:
    """
    The scenes in which a thing is seen: patch features `(num_scenes, 3, num_patches, hidden_size)`, of each kind the
    number of the right answer `(num_scenes,)`, and of which film each is.
    """

    features: torch.Tensor
    answers: dict[str, torch.Tensor]
    films: np.ndarray


class Probe(nn.Module):
    """A new merger and projector of a model's shape, and a linear layer for every kind of answer."""

    def __init__(self, config: FilaVideoConfig, merger: str | None, num_frames: int) -> None:
        super().__init__()
        self.config = copy.deepcopy(config)
        self.config.merger_type, self.config.scene_size = merger or "mean", num_frames if merger else 1
        self.config.newline_position = "none"
        model = FilaVideoForConditionalGeneration(self.config).model
        self.merger, self.projector = model.scene_merger, model.multi_modal_projector
        shape = (config.patches_per_side, config.pooling_mode, config.pooling_stride, self.config.newline_position)
        width = num_visual_tokens(1 if merger else num_frames, *shape) * config.text_config.hidden_size
        self.heads = nn.ModuleDict({kind: nn.Linear(width, len(answers)) for kind, answers in ANSWERS.items()})

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        scenes = features.flatten(0, 1)[:, None] if self.config.scene_size == 1 else features
        merged = self.merger(scenes)
        (tokens,) = visual_tokens(merged, [len(merged)], self.projector, None, self.config)
        tokens = tokens.reshape(len(features), -1)
        return {kind: head(tokens) for kind, head in self.heads.items()}


def film(work: Path, split: str, seed: int, count: int, workers: int) -> Path:
    """The films of a split and the file of their records; what was made before is kept."""
    settings = Settings("travel", split, seed, questions=0, **FILMS)
    folder = work / "films" / f"travel_{split}_{seed}_{count}"
    records = folder / f"{split}_travel.jsonl"
    return records if records.is_file() else make_videos(folder, settings, count, workers, progress=True)


def read_scenes(records: Path, model: FilaVideoForConditionalGeneration, processor: FilaVideoProcessor) -> Scenes:
    """
    The three frames of every thing, of 24 even ones of its film, seen by the model's tower.

    Raises:
        ValueError: If a thing is not seen in three of them.
    """
    features, answers, films = [], {kind: [] for kind in ANSWERS}, []
    for number, (_, record) in enumerate(tqdm([*read_json_records(records)], desc=records.stem, disable=None)):
        frames, metadata = processor.video_processor.load_video(
            records.parent / record["video"], num_scenes=GRID, selection="uniform", seek_mode="exact"
        )
        pixels = processor.video_processor.pixels(frames, device=model.device)
        with torch.no_grad():
            patches = model.encode_frames(pixels).cpu()
        for event in record["events"]:
            shown = [event["start"] <= time < event["end"] for time in metadata.timestamps]
            if sum(shown) != SCENE_SIZE:
                raise ValueError(f"{records}: film {record['id']} shows a thing in {sum(shown)} frames instead of 3.")
            features.append(patches[torch.tensor(shown)])
            films.append(number)
            for kind, known in ANSWERS.items():
                answers[kind].append(known.index(event[kind]))
    return Scenes(torch.stack(features), {kind: torch.tensor(each) for kind, each in answers.items()}, np.array(films))


def train(probe: Probe, scenes: Scenes, frames: slice, epochs: int, batch_size: int, rates: dict[str, float]) -> None:
    """Trains merger, projector and heads together; the merger has a rate of its own."""
    probe.train()
    groups = [{"params": [*module.parameters()], "lr": rates[name]} for name, module in probe.named_children()]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.0)
    steps = epochs * (len(scenes.features) // batch_size)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
    for step in trange(steps, disable=None, leave=False):
        if step % (steps // epochs) == 0:
            order = torch.randperm(len(scenes.features)).split(batch_size)
        rows = order[step % (steps // epochs)]
        scores = probe(scenes.features[rows][:, frames])
        loss = sum(nn.functional.cross_entropy(scores[kind], scenes.answers[kind][rows]) for kind in ANSWERS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def right(probe: Probe, scenes: Scenes, frames: slice) -> dict[str, list[int]]:
    """Of each film the right answers, by kind."""
    probe.eval()
    with torch.no_grad():
        scores = probe(scenes.features[:, frames])
    count = scenes.films.max() + 1
    found = {kind: (scores[kind].argmax(dim=-1) == scenes.answers[kind]).numpy() for kind in ANSWERS}
    return {kind: np.bincount(scenes.films, hits, count).astype(int).tolist() for kind, hits in found.items()}


def save_taught(
    folder: Path, probe: Probe, model: FilaVideoForConditionalGeneration, processor: FilaVideoProcessor
) -> None:
    """Keeps the model with the merger and projector that the probe has learned: where table 3 begins."""
    config = copy.deepcopy(model.config)
    config.merger_type, config.scene_size = probe.config.merger_type, probe.config.scene_size
    taught = FilaVideoForConditionalGeneration(config)
    taught.model.scene_merger, taught.model.multi_modal_projector = probe.merger, probe.projector
    others = {name: weight for name, weight in model.state_dict().items() if name.split(".")[1] not in TAUGHT}
    taught.load_state_dict(taught.state_dict() | others)
    taught.generation_config = copy.deepcopy(model.generation_config)
    taught.save_pretrained(folder)
    processor = copy.deepcopy(processor)
    processor.scene_size = config.scene_size
    processor.save_pretrained(folder)


def table(results: dict[str, list[dict[str, list[int]]]], asked: np.ndarray) -> str:
    """Percent right of each row and kind, and of motion the difference to averaging."""
    counts = {
        row: {kind: np.array([seed[kind] for seed in seeds]) for kind in ANSWERS} for row, seeds in results.items()
    }
    body = []
    for row, kinds in counts.items():
        change = "-"
        if row != REFERENCE and REFERENCE in counts:
            change = percent(difference(kinds["motion"], counts[REFERENCE]["motion"], asked))
        body.append([row, *(percent(accuracy(kinds[kind], asked)) for kind in ANSWERS), change])
    chance = ["chance", *(f"{100 / len(answers):.1f}" for answers in ANSWERS.values()), "-"]
    return markdown(["", *ANSWERS, f"motion, less {REFERENCE}"], [*body, chance])


def main(argv: Iterable[str] | None = None) -> int:
    """Measures and writes the table; exit status 0, or 2 with one line on standard error for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default=str(DEFAULT_MODEL), help="whose tower and shape (default: the embedded one)"
    )
    parser.add_argument("--work", type=Path, metavar="FOLDER", required=True, help="of the films")
    parser.add_argument("--films", type=int, default=1200, help="of training (default: 1200)")
    parser.add_argument("--test-films", type=int, default=120, help="(default: 120)")
    parser.add_argument("--seed", type=int, default=42, help="of the films (default: 42)")
    parser.add_argument("--test-split", choices=("validation", "test"), default="validation")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2), help="of the training (default: 0 1 2)")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--merger-rate", type=float, default=1e-2, help="learning rate of the merger (default: 0.01)")
    parser.add_argument(
        "--save", type=Path, metavar="FOLDER", help="keep the model of each row here, taught with the first seed"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that film (default: 1)")
    parser.add_argument("--device", help="of the tower (default: the best there is)")
    parser.add_argument(
        "--output", type=Path, default=Path("results"), help="folder of the results (default: results)"
    )
    args = parser.parse_args(argv)
    try:
        for name in ("films", "test_films", "epochs", "batch_size"):
            if getattr(args, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}.")
        quiet()
        model, processor = load_model(args.model, args.device)
        records = film(args.work, "train", args.seed, args.films, args.workers)
        known = read_scenes(records, model, processor)
        records = film(args.work, args.test_split, args.seed, args.test_films, args.workers)
        asked = read_scenes(records, model, processor)
        if len(known.features) < args.batch_size:
            raise ValueError(
                f"{args.films} films have {len(known.features)} scenes, fewer than --batch-size {args.batch_size}: "
                "name more --films, or a smaller batch."
            )
        rates = {"merger": args.merger_rate, "projector": args.learning_rate, "heads": args.learning_rate}
        results = {}
        for row, (merger, frames) in ROWS.items():
            results[row] = []
            for seed in args.seeds:
                set_seed(seed)
                probe = Probe(model.config, merger, len(range(*frames.indices(SCENE_SIZE))))
                train(probe, known, frames, args.epochs, args.batch_size, rates)
                results[row].append(right(probe, asked, frames))
                if args.save and seed == args.seeds[0]:
                    save_taught(args.save / re.sub(r"\W+", "_", row), probe, model, processor)
        number = np.bincount(asked.films)
        text = (
            "# What merging keeps of three frames\n\n"
            f"`python -m fila_video.evaluation.motion_probe --work FOLDER --test-split {args.test_split} "
            f"--seed {args.seed}`: {number.sum()} scenes of {len(number)} films, after training on "
            f"{len(known.features)} scenes with {len(args.seeds)} seeds. The tower is frozen, merger and "
            "projector are new, and a linear layer reads the tokens. Percent right, with 95% "
            "intervals over films and seeds.\n\n"
            f"{table(results, number)}"
        )
        places = ("model", "work", "output", "save", "device")
        settings = {name: value for name, value in vars(args).items() if name not in places}
        write(args.output, "motion_probe", text, {"settings": settings, "asked": number.tolist(), "right": results})
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"motion_probe: {' '.join(str(error).split())}\n")
        return 2
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
