"""Rates and memory of the LongVideo build: virtual and materialized records, one core and two, local and Ray.

    python benchmarks/long_video.py --folder FOLDER

Makes 1,000 captioned files of 30 to 48 seconds at 640 x 360 (12 encoded videos under many names, captions of 300
words), then builds from them, each engine in a process of its own. A rate is the slope between a small build and a
large one, so that starting processes does not count in it; it stands beside. Memory is the peak of the process and
all that it started.
"""

import argparse
import json
import os
import random
import shutil
import sys
import threading
import time
from pathlib import Path

from fila_video.benchmarks.child import run_child

VIRTUAL = (100, 10_000)  # records of 5 to 30 minutes
COPIED = (4, 24)  # records of 5 to 30 minutes
ENCODED = (2, 6)  # records of about one minute


def make_clip(path: Path, seconds: int, rate: int, seed: int) -> None:
    import av
    import numpy as np

    chance = np.random.default_rng(seed)
    small = chance.integers(0, 256, (45, 80, 3), dtype=np.uint8)
    picture = np.kron(small, np.ones((8, 8, 1), dtype=np.uint8))
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "26", "g": "50"}
        for number in range(seconds * rate):
            moved = np.roll(picture, (number, 2 * number), axis=(0, 1))
            out.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        out.mux(stream.encode(None))


def make_set(folder: Path, names: int, rates: list[int], seconds: list[int]) -> None:
    (folder / "videos").mkdir(parents=True)
    encoded = []
    for number, rate in enumerate(rates):
        encoded.append(folder / f"{number}.mp4")
        make_clip(encoded[-1], seconds[number], rate, number)
    chance, records = random.Random(0), []
    words = [f"word{number}" for number in range(2000)]
    for number in range(names):
        name = f"{number:04d}.mp4"
        os.link(encoded[number % len(encoded)], folder / "videos" / name)
        answer = {"from": "gpt", "value": " ".join(chance.choices(words, k=300))}
        records.append({"id": name, "video": name, "conversations": [{"from": "human", "value": "<image>"}, answer]})
    (folder / "captions.json").write_text(json.dumps(records))


class Peak(threading.Thread):
    """The largest memory of this process and its descendants together, in MiB, looked at five times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.value, self._over = 0.0, threading.Event()

    def run(self) -> None:
        import psutil

        process = psutil.Process()
        while not self._over.wait(0.2):
            total = 0
            for one in [process, *process.children(recursive=True)]:
                try:
                    total += one.memory_full_info().pss
                except psutil.Error:
                    continue
            self.value = max(self.value, total / 2**20)

    def stop(self) -> float:
        self._over.set()
        self.join()
        return self.value


def build(folder: Path, name: str, count: int, engine: str, workers: int, rules: dict, materialize: bool) -> dict:
    """Seconds and MiB of one build."""
    from fila_video.long_video.build import BuildSettings, build_dataset
    from fila_video.long_video.plan import JoiningRules

    output = folder / "output"
    settings = BuildSettings(
        annotations=folder / name / "captions.json",
        videos=folder / name / "videos",
        output=output,
        rules=JoiningRules(count=count, max_uses=1000, **rules),
        materialize=materialize,
        shard_size=100,
        engine=engine,
        workers=workers,
        durations_cache=folder / f"{name}.durations",
        progress=False,
    )
    peak, start = Peak(), time.perf_counter()
    peak.start()
    statistics, _ = build_dataset(settings)
    seconds = time.perf_counter() - start
    mib, played = peak.stop(), float(statistics.durations.sum())
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    shutil.rmtree(output)
    return {"seconds": seconds, "mib": mib, "count": count, "played": played, "bytes": size}


def measure(folder: Path, engine: str, workers: int, smoke: bool = False) -> None:
    """One line of JSON for each kind of build, from a small build and a large one."""
    from fila_video.long_video.engines import running

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:workers])
    minute = {"min_duration": 55.0, "max_duration": 75.0}
    kinds = {
        "virtual": ("agreeing", VIRTUAL, {}, False),
        "copied": ("agreeing", COPIED, {}, True),
        "encoded": ("differing", ENCODED, minute, True),
    }
    if smoke:
        short = {"min_duration": 5.0, "max_duration": 15.0}
        kinds = {kind: (name, (1, 3), short, written) for kind, (name, _, _, written) in kinds.items()}
    with running(engine):
        name, counts, rules, _ = kinds["virtual"]
        first = build(folder, name, counts[0], engine, workers, rules, False)
        for kind, (name, counts, rules, materialize) in kinds.items():
            small, large = (build(folder, name, count, engine, workers, rules, materialize) for count in counts)
            records, seconds = large["count"] - small["count"], large["seconds"] - small["seconds"]
            result = {
                "engine": engine,
                "cores": workers,
                "kind": kind,
                "records_per_second": records / seconds,
                "times_real_time": (large["played"] - small["played"]) / seconds,
                "megabytes_per_record": large["bytes"] / large["count"] / 1e6,
                "start_seconds": first["seconds"],
                "small": small,
                "large": large,
            }
            print(json.dumps(result), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="a new folder for the set and the builds")
    parser.add_argument("--engines", nargs="+", choices=("local", "ray"), default=["local", "ray"])
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--smoke", action="store_true", help="a few small records, to see that it runs")
    parser.add_argument("--measure", nargs=2, metavar=("ENGINE", "CORES"), help="measure one engine on a set there is")
    args = parser.parse_args()
    if args.measure:
        measure(args.folder, args.measure[0], int(args.measure[1]), args.smoke)
        return
    if args.smoke:
        make_set(args.folder / "agreeing", 8, [5] * 2, [3, 4])
        make_set(args.folder / "differing", 8, [5, 4], [3, 4])
    else:
        make_set(args.folder / "agreeing", 1000, [25] * 12, [30 + 18 * number // 11 for number in range(12)])
        make_set(args.folder / "differing", 40, [25, 24, 20, 25], [16] * 4)
    print("| engine | cores | kind | records/s | x real time | MB/record | small: s, MiB | large: s, MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for engine in args.engines:
        for cores in args.cores:
            command = [sys.executable, __file__, "--folder", str(args.folder), "--measure", engine, str(cores)]
            command += ["--smoke"] * args.smoke
            for line in run_child(command).splitlines():
                if not line.startswith("{"):
                    continue
                found = json.loads(line)
                sides = " | ".join(
                    f"{found[side]['count']:,}: {found[side]['seconds']:.1f} s, {found[side]['mib']:.0f} MiB"
                    for side in ("small", "large")
                )
                print(
                    f"| {engine} | {cores} | {found['kind']} | {found['records_per_second']:.3g} "
                    f"| {found['times_real_time']:.4g} | {found['megabytes_per_record']:.3g} | {sides} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
