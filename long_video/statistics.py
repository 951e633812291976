"""The numbers of a LongVideo build, figure 3's two histograms, and the data card."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .annotations import LongVideoError
from .json_records import read_own_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _PALE, _BLUE, _GREEN = "#22303c", "#d9dfe4", "#3b76af", "#4f9d69"


@dataclass
class Statistics:
    """`durations` (N,) float64, seconds; `words` (N,) int64, of the merged captions; `scenes` (N,) int64."""

    durations: np.ndarray
    words: np.ndarray
    scenes: np.ndarray

    @classmethod
    def of(cls, records: Iterable[dict]) -> "Statistics":
        """Of any number of records, three numbers of each are kept."""
        numbers = np.fromiter(
            (
                (record["duration"], len(record["conversations"][1]["value"].split()), len(record["segments"]))
                for record in records
            ),
            dtype=np.dtype((np.float64, 3)),
        )
        return cls(numbers[:, 0], numbers[:, 1].astype(np.int64), numbers[:, 2].astype(np.int64))

    def summary(self) -> dict:
        """The columns of the paper's comparison of datasets (supplement A), and the ranges."""
        return {
            "num_records": len(self.durations),
            "mean_words": round(float(self.words.mean()), 1),
            "mean_duration_seconds": round(float(self.durations.mean()), 1),
            "total_duration_hours": round(float(self.durations.sum()) / 3600, 2),
            "mean_scenes": round(float(self.scenes.mean()), 1),
            "min_duration_seconds": round(float(self.durations.min()), 1),
            "max_duration_seconds": round(float(self.durations.max()), 1),
            "min_words": int(self.words.min()),
            "max_words": int(self.words.max()),
        }


def check_complete(output: str | Path) -> None:
    """
    Raises:
        LongVideoError: If the folder holds a build that has not finished, whose card is written last, or one that
        misses shards, which tell their number in their names.
    """
    output = Path(output)
    work = output / ".build"
    # A refused build leaves its lock, or on Windows nothing. A copy of a finished one may have lost what lay there.
    inside = {path.name for path in work.iterdir()} if work.is_dir() else {"lock"}
    is_build = bool(inside - {"lock"}) or (not inside and (output / "README.md").is_file())
    shards = list(output.glob("data/train-*-of-*.jsonl"))
    if not is_build and not shards:
        return
    again = f"the same `fila-video build-dataset ... --output {output}` again"
    if is_build and not (output / "README.md").is_file():
        raise LongVideoError(
            f"The build in {str(output)!r} has not finished: it has no README.md, which is written last. Start "
            f"{again}, which goes on with it."
        )
    total = int(shards[0].stem.rpartition("-")[2]) if shards else None
    if len(shards) != total:
        found = f"{len(shards)} of its {total}" if shards else "none of its"
        raise LongVideoError(
            f"The build in {str(output)!r} has {found} shards in `data`: copy the others there, or remove its "
            f"README.md and start {again}, which writes them."
        )


def read_records(output: str | Path) -> Iterator[dict]:
    """
    The records of a build, in order, one at a time.

    Raises:
        ValueError: If a line is not valid JSON; with its file and number.
    """
    for shard in sorted(Path(output).glob("data/train-*.jsonl")):
        yield from read_own_lines(shard)


def draw_histograms(statistics: Statistics, path: str | Path) -> None:
    """Figure 3: durations on the left, words of the merged captions on the right, as a PNG of 1800 x 675 pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    minutes = statistics.durations.max() >= 120
    durations = statistics.durations / (60 if minutes else 1)
    _histogram(left, durations, "Duration of the videos", "minutes" if minutes else "seconds", "{:,.1f}", _BLUE)
    _histogram(right, statistics.words, "Length of the captions", "words", "{:,.0f}", _GREEN)
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.1, wspace=0.06)
    # Without the library's version, equal records give an equal file for longer.
    figure.savefig(path, format="png", metadata={"Software": None})


def _histogram(axes: "Axes", values: np.ndarray, title: str, unit: str, form: str, color: str) -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    low, high = float(values.min()), float(values.max())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    bins = int(np.clip(np.sqrt(len(values)), 5, 30))
    axes.hist(values, bins=bins, range=(low, high), color=color, edgecolor="white", linewidth=0.8, zorder=2)
    mean = float(values.mean())
    axes.axvline(mean, color=_INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=3)
    axes.margins(x=0.02)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.14)  # room for the mean's label
    axes.annotate(
        f"mean {form.format(mean)}",
        (mean, axes.get_ylim()[1]),
        xytext=(6, -6),
        textcoords="offset points",
        va="top",
        color=_INK,
        fontsize=10.5,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=_INK, pad=10)
    axes.set_xlabel(unit, color=_INK, fontsize=11)
    axes.set_ylabel("videos", color=_INK, fontsize=11)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if high >= 1000:
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="y", color=_PALE, linewidth=0.8, zorder=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_PALE)
    axes.tick_params(colors=_INK, length=0, labelsize=10)


def write_card(statistics: Statistics, settings: dict, num_bad: int, path: str | Path) -> None:
    """The data card: metadata by which `datasets` loads the shards, the numbers, and what a record holds.

    Args:
        settings (`dict`):
            The settings of the build, as they are kept beside it.
        num_bad (`int`):
            Inputs that were left out.
    """
    summary = statistics.summary()
    count = summary["num_records"]
    sizes = [(1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M")]
    size = next((name for limit, name in sizes if count < limit), "n>1M")
    sources = ", ".join(f"`{name}`" for name, _ in settings["annotations"])
    materialized = settings["materialize"]
    text = _CARD.format(
        size=size,
        dtype_video="\n  - name: video\n    dtype: string" if materialized else "",
        sources=sources,
        videos=(
            "The joined videos lie under `videos/`; a record names its own in `video`."
            if materialized
            else "No video was encoded anew: a record lists the files and spans that are played one after the other."
        ),
        left_out=f"{num_bad} inputs were left out; `bad_inputs.jsonl` says why."
        if num_bad
        else "No input was left out.",
        **summary,
        **{key: settings[key] for key in ("seed", "max_uses", "min_duration", "max_duration")},
    )
    Path(path).write_text(text, encoding="utf-8")


_CARD = """---
pretty_name: LongVideo
task_categories:
- video-text-to-text
language:
- en
size_categories:
- {size}
tags:
- long-video
- video-captioning
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.jsonl
dataset_info:
  features:
  - name: id
    dtype: string
  - name: duration
    dtype: float64
  - name: segments
    list:
    - name: file
      dtype: string
    - name: start
      dtype: float64
    - name: end
      dtype: float64
    - name: scene_start
      dtype: float64
    - name: scene_end
      dtype: float64
    - name: caption
      dtype: string
    - name: id
      dtype: string
    - name: data_source
      dtype: string
  - name: conversations
    list:
    - name: from
      dtype: string
    - name: value
      dtype: string
  - name: data_source
    dtype: string{dtype_video}
---

# LongVideo

Long captioned videos made of short ones, as in section 3.3 of the FiLA-Video paper: short videos with a description
each are joined, each is one scene, and the caption gives every scene's time span and text in order.

| videos | mean words | mean duration | total duration | mean scenes |
| --- | --- | --- | --- | --- |
| {num_records:,} | {mean_words:,} | {mean_duration_seconds:,} s | {total_duration_hours:,} h | {mean_scenes:,} |

Durations run from {min_duration_seconds:,} to {max_duration_seconds:,} seconds, captions from {min_words:,} to
{max_words:,} words.

![Durations of the videos and lengths of the captions](statistics.png)

Made from {sources}, with the seed {seed}: durations of {min_duration:g} to {max_duration:g} seconds, spread as
evenly as the set allows; a short video at most {max_uses} times in all and once in a long one. {left_out} {videos}

## A record

- `id`, `duration` (seconds), `data_source`
- `segments`: in the order of play, `file` under the folder of short videos, the seconds of it that are played
  (`start`, `end`), the seconds of the long video that it fills (`scene_start`, `scene_end`), its `caption`, `id` and
  `data_source`
- `conversations`: one turn of `human` and one of `gpt`. In the human's, `<image>` stands for the video, and
  `<time_instruction>` for the sentence "This video samples N frames of a T-second video at t1, t2, ... seconds.",
  which is filled in when frames are sampled, so that a record serves any number of frames.

```python
from datasets import load_dataset
from fila_video.long_video.records import fill_time_instruction, record_source
from fila_video.video_reading_fila_video import read_frames

record = load_dataset("PATH OF THIS FOLDER", split="train")[0]
video = read_frames(record_source(record, "FOLDER OF THE SHORT VIDEOS"), num_frames=96, size=(384, 384))
conversations = fill_time_instruction(record, video.timestamps)
```

The licenses and the terms of the short videos and of their captions apply.
"""


__all__ = ["Statistics", "check_complete", "draw_histograms", "read_records", "write_card"]
