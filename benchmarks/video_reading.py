"""256 and 512 frames out of an hour of video: this reader beside transformers' pyav, torchcodec and decord.

    python -m fila_video.benchmarks.video_reading --folder FOLDER --output table.md

makes its videos in FOLDER once (1.9 GB) and runs every reader in a process of its own, all of them in turn, and that
three times; the table gives medians, in seconds of the clock and of all processors. Every reader has as many threads
as this one takes. This reader also scales its frames to 384 x 384; the peers return them at full size. Peak memory is
counted above the imports and the frames returned. `exact_cuda` and `torchcodec_cuda` decode on a GPU, where there is
one; their seconds include its start, and this reader scales on the CPU. `pool` is the processor's adaptive pool: it
looks at a frame a second and keeps those that change most. `--smallest` reads 8 frames of 2 seconds once, to see that
it runs. `--other TREE` measures `exact` of another checkout of this repository on the same files, as `other:exact`.
"""

import argparse
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

Task = tuple[str, str, int]  # file, reader, number of frames

WIDTH, HEIGHT, RATE, GROUP = 640, 360, 24, 250
SIZE = (384, 384)
NUM_FRAMES = (256, 512)
THREADS = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 4)
MINUTES_10, HOUR, HOURS_2, HOURS_3, MINUTE_1, SECONDS_10 = (
    "minutes10.mp4",
    "hour.mp4",
    "hours2.mp4",
    "hours3.mp4",
    "minute1.mp4",
    "seconds10.mp4",
)
SECONDS_2 = "seconds2.mp4"
_SCALING = 0x4 | 0x2000 | 0x4000 | 0x40000  # bicubic, full chroma, accurate rounding
OURS = ("exact", "auto", "keyframe")
ON_GPU = ("exact_cuda", "torchcodec_cuda")
READERS = (*OURS, "pool", "straight", "straight_threads", "transformers_pyav", "torchcodec", "decord", *ON_GPU)


def texture(random: np.random.Generator, height: int, width: int, octaves: int = 6) -> np.ndarray:
    """(height, width) uint8: smooth noise on several scales, as busy as a photograph."""
    image = np.zeros((height, width))
    for octave in range(octaves):
        step = 2 ** (octaves - octave)
        coarse = random.normal(size=(height // step + 2, width // step + 2))
        rows, columns = np.arange(height) / step, np.arange(width) / step
        y, x = rows.astype(int), columns.astype(int)
        fy, fx = (rows - y)[:, None], (columns - x)[None]
        upper = coarse[y][:, x] * (1 - fx) + coarse[y][:, x + 1] * fx
        lower = coarse[y + 1][:, x] * (1 - fx) + coarse[y + 1][:, x + 1] * fx
        image += (upper * (1 - fy) + lower * fy) / 2**octave
    return np.clip(128 + 45 * (image - image.mean()) / image.std(), 16, 235).astype(np.uint8)


def window(image: np.ndarray, y: float, x: float, height: int, width: int) -> np.ndarray:
    """(height, width) float32: the part of `image` at (y, x), between its pixels too."""
    top, left = int(y), int(x)
    part = image[top : top + height + 1, left : left + width + 1].astype(np.float32)
    part = part[:-1] * (1 - y + top) + part[1:] * (y - top)
    return part[:, :-1] * (1 - x + left) + part[:, 1:] * (x - left)


def draw(planes: list[tuple[np.ndarray, ...]], sprites: list[np.ndarray], second: float) -> np.ndarray:
    """One frame: a camera that pans over a texture, a new one every 7 seconds, and four things that move before it.

    The camera moves smoothly, by parts of a pixel: where it jerks, x264 chooses few B-frames.
    """
    luma, blue, red = planes[int(second / 7) % len(planes)]
    x = 700 + 650 * np.sin(0.31 * second)
    y = 320 + 300 * np.sin(0.23 * second)
    luma = window(luma, y, x, HEIGHT, WIDTH)
    for number, sprite in enumerate(sprites):
        height, width = sprite.shape
        left = int((WIDTH - width) * (0.5 + 0.5 * np.sin(second * (1.1 + 0.3 * number) + number)))
        top = int((HEIGHT - height) * (0.5 + 0.5 * np.cos(second * (0.9 + 0.2 * number) + 2 * number)))
        luma[top : top + height, left : left + width] = sprite
    chroma = [64 + window(plane, y / 2, x / 2, HEIGHT // 2, WIDTH // 2).ravel() / 2 for plane in (blue, red)]
    return np.concatenate([luma.ravel(), *chroma]).astype(np.uint8)


def make_video(path: str | Path, seconds: float) -> None:
    """H.264 with x264's default settings (medium, crf 23, up to 3 B-frames, pyramid), a keyframe every 250 frames."""
    random = np.random.default_rng(0)
    planes = [(texture(random, 1024, 2048), texture(random, 512, 1024), texture(random, 512, 1024)) for _ in range(6)]
    sprites = [texture(random, 128, 160) for _ in range(4)]
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {
            "g": str(GROUP),
            "keyint_min": str(GROUP),
            "sc_threshold": "0",
        }
        for number in range(seconds * RATE):
            image = draw(planes, sprites, number / RATE).reshape(HEIGHT * 3 // 2, WIDTH)
            frame = av.VideoFrame.from_ndarray(image, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def repeat(source: Path, target: Path, times: int) -> None:
    """The video `source`, several times over, without encoding it again."""
    with av.open(str(target), "w", format="mp4") as out:
        with av.open(str(source)) as first:
            stream = out.add_stream_from_template(first.streams.video[0])
        shift = 0
        for _ in range(times):
            end = 0
            with av.open(str(source)) as container:
                for packet in container.demux(video=0):
                    if packet.dts is not None:
                        end = max(end, packet.pts + packet.duration)
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                        out.mux(packet)
            shift += end


def make_videos(folder: Path, smallest: bool = False) -> None:
    from fila_video.commands.files import replacing

    folder.mkdir(parents=True, exist_ok=True)
    if smallest:
        if not (folder / SECONDS_2).exists():
            with replacing(folder / SECONDS_2) as unfinished:
                make_video(unfinished, 2)
        return
    for name, seconds in ((SECONDS_10, 10), (MINUTE_1, 60), (MINUTES_10, 600)):
        if not (folder / name).exists():
            with replacing(folder / name) as unfinished:
                make_video(unfinished, seconds)
    for name, times in ((HOUR, 6), (HOURS_2, 12), (HOURS_3, 18)):
        if not (folder / name).exists():
            with replacing(folder / name) as unfinished:
                repeat(folder / MINUTES_10, unfinished, times)


def read_straight(path: str | Path, num_frames: int, threads: int) -> np.ndarray:
    """What PyAV does without us: every frame decoded in turn, the wanted ones scaled by the same scaler."""
    frames = np.empty((num_frames, *SIZE, 3), dtype=np.uint8)
    scaler = av.video.reformatter.VideoReformatter()
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = ("SLICE" if threads == 1 else "AUTO"), threads
        wanted = np.linspace(0, stream.frames - 1, min(num_frames, stream.frames)).astype(int)
        place = {number: row for row, number in enumerate(wanted.tolist())}
        for number, frame in enumerate(container.decode(stream)):
            if number in place:
                scaled = scaler.reformat(frame, SIZE[1], SIZE[0], "rgb24", interpolation=_SCALING, threads=1)
                frames[place[number]] = scaled.to_ndarray()
    return frames[: len(place)]


def prepare(reader: str, num_frames: int) -> Callable[[str], np.ndarray]:
    """Imports what `reader` needs and returns the function that reads a path."""

    def evenly(total: int) -> np.ndarray:
        return np.linspace(0, total - 1, min(num_frames, total)).astype(int)

    if reader in OURS:
        from fila_video.video_reading_fila_video import read_frames

        return lambda path: read_frames(path, num_frames=num_frames, size=SIZE, seek_mode=reader).frames
    if reader == "exact_cuda":
        from fila_video.video_reading_fila_video import read_frames

        return lambda path: read_frames(path, num_frames=num_frames, size=SIZE, hwaccel="cuda").frames
    if reader == "pool":
        from fila_video.video_processing_fila_video import FilaVideoVideoProcessor

        processor = FilaVideoVideoProcessor(
            size={"height": SIZE[0], "width": SIZE[1]}, max_candidates=num_frames, seek_mode="exact"
        )
        return lambda path: processor.load_video(path)[0]
    if reader == "straight":
        return lambda path: read_straight(path, num_frames, 1)
    if reader == "straight_threads":
        return lambda path: read_straight(path, num_frames, THREADS)
    if reader == "transformers_pyav":
        from transformers.video_utils import load_video

        return lambda path: load_video(path, num_frames=num_frames, backend="pyav")[0]
    if reader.startswith("torchcodec"):
        from torchcodec.decoders import VideoDecoder

        settings = {"device": "cuda"} if reader == "torchcodec_cuda" else {"num_ffmpeg_threads": THREADS}

        def read(path: str | Path) -> np.ndarray:
            decoder = VideoDecoder(path, **settings)
            return decoder.get_frames_at(evenly(len(decoder)).tolist()).data.cpu()

        return read
    import decord

    def read(path: str | Path) -> np.ndarray:
        decoder = decord.VideoReader(path, num_threads=THREADS)
        return decoder.get_batch(evenly(len(decoder))).asnumpy()

    return read


def peak_memory() -> int:
    """The most resident bytes since the last write to `clear_refs`; `ru_maxrss` would know the parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def measure_here(reader: str, num_frames: int, path: str | Path) -> None:
    """Prints the seconds, the CPU seconds of all threads and the peak memory of one read, as JSON. Linux only."""
    read = prepare(reader, int(num_frames))
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_memory()
    start, cpu = time.perf_counter(), time.process_time()
    frames = read(path)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    megabytes = max(0, peak_memory() - before - frames.nbytes) / 1e6
    print(json.dumps({"seconds": seconds, "cpu": cpu, "megabytes": megabytes, "frames": len(frames)}))


def measure(reader: str, num_frames: int, path: str | Path, other: str | None = None) -> dict:
    """One read in a process of its own; `other:exact` is `exact` of the checkout in the folder `other`."""
    kind, _, mode = reader.rpartition(":")
    command = [sys.executable, str(Path(__file__).absolute()), "--one", mode, str(num_frames), str(path)]
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ)
        if kind:
            Path(folder, "fila_video").symlink_to(Path(other).absolute())
            environment["PYTHONPATH"] = folder
        ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ran.returncode:
        raise RuntimeError(f"{reader} failed on {path}:\n{ran.stderr[-2000:]}")
    return json.loads(ran.stdout.splitlines()[-1])


def compare_features(path: str | Path, num_frames: int = 32) -> dict[str, float]:
    """Cosines between a SigLIP's features of frames scaled by this reader and by torchvision's antialiased bicubic.

    The tower has the shape of SigLIP base and random, seeded weights: what is compared is the scaling. Features are
    means over the patches; the second cosine is taken after subtracting what all frames share, their mean.
    """
    import torch
    from fila_video.video_reading_fila_video import read_frames
    from torchvision.transforms.v2 import functional
    from transformers import SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(0)
    tower = SiglipVisionModel(SiglipVisionConfig(image_size=SIZE[0], patch_size=16)).eval()

    def features(images: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        if tuple(pixels.shape[-2:]) != SIZE:
            pixels = functional.resize(pixels, list(SIZE), functional.InterpolationMode.BICUBIC, antialias=True)
        with torch.no_grad():
            return torch.cat([tower(part / 127.5 - 1).last_hidden_state.mean(1) for part in pixels.float().split(8)])

    ours = features(read_frames(path, num_frames=num_frames, size=SIZE).frames)
    theirs = features(read_frames(path, num_frames=num_frames).frames)
    plain = torch.cosine_similarity(ours, theirs)
    centered = torch.cosine_similarity(ours - theirs.mean(0), theirs - theirs.mean(0))
    return {"cosine": plain.min().item(), "centered cosine": centered.min().item(), "mean": centered.mean().item()}


def run(folder: Path, rounds: int, tasks: list[Task], other: str | None = None) -> dict[Task, list[dict]]:
    """Every task in turn, `rounds` times: {(file, reader, number of frames): [measurement, ...]}."""
    results = {task: [] for task in tasks}
    for number in range(rounds):
        for name, reader, num_frames in tasks:
            results[name, reader, num_frames].append(measure(reader, num_frames, folder / name, other))
            last = results[name, reader, num_frames][-1]
            print(f"round {number + 1}: {name} {reader} {num_frames} {last}", file=sys.stderr, flush=True)
    return results


def choose_tasks(readers: list[str], short: bool) -> list[Task]:
    """`(file, reader, number of frames)`: the clips against decoding straight through, the long ones against peers."""
    ours = [reader for reader in readers if reader.partition(":")[0] in (*OURS, "other")]
    straight = [reader for reader in readers if reader.startswith("straight")]
    clips = [reader for reader in ours if reader.endswith("exact")] + straight
    tasks = [(name, reader, NUM_FRAMES[0]) for name in (SECONDS_10, MINUTE_1) for reader in clips]
    if not short:
        peers = [reader for reader in readers if reader not in straight and reader != "pool"]
        tasks += [(HOUR, reader, count) for count in NUM_FRAMES for reader in peers]
        tasks += [(name, reader, NUM_FRAMES[0]) for name in (MINUTES_10, HOURS_2) for reader in ours]
        tasks += [(name, "pool", NUM_FRAMES[1]) for name in (MINUTES_10, HOUR, HOURS_3) if "pool" in readers]
    return tasks


def installed_readers() -> list[str]:
    """All but those whose package, or whose GPU, this machine does not have."""
    import torch

    def is_there(name: str) -> bool:
        package = name.partition("_cuda")[0]
        has_package = package not in ("torchcodec", "decord") or importlib.util.find_spec(package) is not None
        return has_package and (name not in ON_GPU or torch.cuda.is_available())

    return list(filter(is_there, READERS))


def report(results: dict[Task, list[dict]], features: dict | None) -> str:
    """The results as Markdown."""
    medians = {
        task: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for task, runs in results.items()
    }
    bases = ("exact", "other:exact", "transformers_pyav", "torchcodec", "straight_threads")
    bases = [base for base in bases if any(reader == base for _, reader, _ in medians)]
    lines = [
        f"| video | reader | frames | seconds | CPU s | peak MB | {' | '.join(f'of {base}' for base in bases)} |",
        f"| --- | --- | --: | --: | --: | --: |{' --: |' * len(bases)}",
    ]
    for (name, reader, count), result in medians.items():
        ratios = []
        for base in bases:
            other = medians.get((name, base, count))
            ratios.append(
                f"{result['seconds'] / other['seconds']:.2f}, {result['cpu'] / other['cpu']:.2f}" if other else ""
            )
        figures = (f"{result[key]:{form}}" for key, form in (("seconds", ".2f"), ("cpu", ".2f"), ("megabytes", ".0f")))
        lines.append(f"| {' | '.join([name, reader, str(int(result['frames'])), *figures, *ratios])} |")
    lines += ["", f"Ratios are of seconds, then of CPU seconds. Threads: {THREADS}."]
    if features:
        lines += ["", f"Features against torchvision's antialiased bicubic, smallest of 32 frames: {features}"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the videos are made and kept")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="the short clips alone")
    parser.add_argument("--output", type=Path, help="a Markdown file for the table, printed anyway")
    parser.add_argument("--smallest", action="store_true", help="8 frames of 2 seconds by `exact`, once")
    parser.add_argument("--readers", nargs="+", choices=READERS, help="only these; by default all that are installed")
    parser.add_argument("--other", type=Path, help="another checkout of this repository, whose reader runs too")
    parser.add_argument("--one", nargs=3, metavar=("READER", "FRAMES", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure_here(*arguments.one)
        return
    if arguments.folder is None:
        parser.error("--folder is required")
    make_videos(arguments.folder, arguments.smallest)
    readers = arguments.readers or installed_readers()
    if arguments.other:
        readers = [new for name in readers for new in ([name, f"other:{name}"] if name == "exact" else [name])]
    tasks = [(SECONDS_2, "exact", 8)]
    if not arguments.smallest:
        tasks = choose_tasks(readers, arguments.short)
    results = run(arguments.folder, 1 if arguments.smallest else arguments.rounds, tasks, arguments.other)
    whole = not arguments.short and not arguments.smallest
    table = report(results, compare_features(arguments.folder / MINUTE_1) if whole else None)
    print(table)
    if arguments.output:
        arguments.output.write_text(table + "\n")


if __name__ == "__main__":
    main()
