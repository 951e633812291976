"""Reads damaged videos in a process of its own: `python fuzz_reader.py TESTS FIRST COUNT SECONDS MEGABYTES`."""

import contextlib
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
from fila_video.video_reading_fila_video import VideoReadError, read_frames

READS = [
    {"num_frames": 5},
    {"fps": 3, "seek_mode": "keyframe"},
    {"times": [0, 0.5, 9]},
    {"num_frames": 10**6},
]


def main(tests, first, count, seconds, megabytes) -> None:
    sys.path.insert(0, tests)
    from helpers.fuzz_files import fuzz_files, make_seeds

    av.logging.set_level(None)
    seeds = make_seeds()
    for files in seeds.values():
        with contextlib.suppress(VideoReadError):
            read_frames(files[0], num_frames=3)
    descriptors, memory = len(os.listdir("/proc/self/fd")), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {"frames": 0, "errors": 0, "slowest": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        for number, extension, data in fuzz_files(seeds, int(first), int(count)):
            print(number, extension, flush=True, file=sys.stderr)
            path = Path(folder, f"{number}.{extension}")
            path.write_bytes(data)
            start = time.monotonic()
            try:
                source = path if number % 2 else data
                frames = read_frames(source, size=(32, 32), **READS[number % len(READS)])
                times = frames.timestamps
                assert len(frames.frames) == len(times) > 0, f"{number} {extension}: {len(times)} times"
                assert (np.diff(times) >= 0).all() and np.isfinite(times).all(), f"{number} {extension}: times {times}"
                outcomes["frames"] += 1
            except VideoReadError as error:
                assert str(error).startswith("Cannot read the video "), error
                outcomes["errors"] += 1
            taken = time.monotonic() - start
            outcomes["slowest"] = max(outcomes["slowest"], taken)
            assert taken < float(seconds), f"{number} {extension} took {taken:.1f} s"
            assert len(os.listdir("/proc/self/fd")) == descriptors, f"{number} {extension} left a descriptor open"
            path.unlink()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) // 1024
    assert grown < float(megabytes), f"memory grew by {grown} MB"
    print(
        f"{outcomes['frames']} gave frames, {outcomes['errors']} a VideoReadError; the slowest took "
        f"{outcomes['slowest']:.2f} s; memory grew by {grown} MB"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
