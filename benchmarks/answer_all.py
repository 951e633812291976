"""
The rate and the memory of `answer-all` on many short films of the procedural world, with one process and two.

    python -m fila_video.benchmarks.answer_all

Twenty films of 5 to 15 seconds, under 1,000 names, each asked one question. The rate counts from the first answer to
the last, so that loading the model does not count in it. Processor seconds are those of all processes, and memory is
what the workers hold at each quarter of the run.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import psutil

from ..inference.answer_all import answer_all
from ..toy_world.make_videos import Settings, make_videos

FILMS = 20
QUESTION = "What happens in this video?"


def make_records(folder: Path, count: int) -> Path:
    """Films under `count` names, and the file that lists them."""
    made = make_videos(folder / "films", Settings("clip", split="test", questions=0), min(FILMS, count))
    films = [made.parent / json.loads(line)["video"] for line in made.read_text(encoding="utf-8").splitlines()]
    (folder / "names").mkdir()
    with open(folder / "records.jsonl", "w", encoding="utf-8") as records:
        for number in range(count):
            name = f"names/{number:06d}.mp4"
            os.link(films[number % len(films)], folder / name)
            records.write(json.dumps({"id": str(number), "video": name}) + "\n")
    return folder / "records.jsonl"


def measure(records: Path, count: int, workers: int, model: str | None) -> dict[str, object]:
    """One run, with `workers` processes."""
    seen: list[tuple[int, float, float, float]] = []  # rows, seconds, processor seconds, MiB
    rows = 0

    def look(new: int, failed: int) -> None:
        nonlocal rows
        rows += new
        if new and (not seen or rows * 4 // count > seen[-1][0] * 4 // count):
            processes = psutil.Process().children(recursive=True)
            used = [process.cpu_times() for process in processes]
            held = sum(process.memory_info().rss for process in processes) / 2**20
            seen.append((rows, time.monotonic(), sum(each.user + each.system for each in used), held))

    output = records.with_name(f"answers-{workers}.jsonl")
    done = answer_all(records, output, QUESTION, model=model, workers=workers, progress=look)
    if done.failed or done.answered != count:
        raise ValueError(f"{done.failed} of {done.answered} answers have errors; {count} were expected: {output}")
    first, last = seen[0], seen[-1]
    return {
        "workers": workers,
        "records a second": round((last[0] - first[0]) / (last[1] - first[1]), 2),
        "processor seconds a record": round((last[2] - first[2]) / (last[0] - first[0]), 3),
        "MiB at the quarters": [round(each[3]) for each in seen],
    }


def main(argv: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1000, help="(default: 1000)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes (default: 1 2)")
    parser.add_argument("--model", help="folder or Hub name (default: the embedded demonstration)")
    args = parser.parse_args(argv)
    if args.records < 8:
        parser.error(f"--records must be at least 8, got {args.records}")
    with tempfile.TemporaryDirectory() as folder:
        records = make_records(Path(folder), args.records)
        table = [measure(records, args.records, workers, args.model) for workers in args.workers]
    print("| " + " | ".join(table[0]) + " |\n| " + " | ".join("---" for _ in table[0]) + " |")
    for row in table:
        cells = (", ".join(map(str, cell)) if isinstance(cell, list) else str(cell) for cell in row.values())
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
