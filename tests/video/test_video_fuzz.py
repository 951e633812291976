"""Thousands of damaged videos give frames in order or a `VideoReadError`, soon, in little memory; so do 500 reads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.fuzz_files import fuzz_files, make_seeds

TESTS = Path(__file__).parent.parent
FUZZ_FILES = int(os.environ.get("FILA_VIDEO_FUZZ_FILES", "156"))  # the long run: 3000 and more
FUZZ_SECONDS = 60  # for one file, on a loaded machine
FUZZ_MEGABYTES = 300
IN_ONE_PROCESS = 520


def test_damaged_videos_neither_crash_nor_hang_nor_give_times_that_descend() -> None:
    """In processes of their own, so that a crash is seen. Seeded: the same files in every run."""
    for first in range(0, FUZZ_FILES, IN_ONE_PROCESS):
        count = min(IN_ONE_PROCESS, FUZZ_FILES - first)
        command = [sys.executable, str(TESTS / "helpers/fuzz_reader.py"), str(TESTS), str(first), str(count)]
        command += [str(FUZZ_SECONDS), str(FUZZ_MEGABYTES)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300 + 10 * count)
        assert ran.returncode == 0, f"exit code {ran.returncode}\n{ran.stderr[-2000:]}"
        print(f"files {first} to {first + count - 1}: {ran.stdout.strip().splitlines()[-1]}")


def test_the_damage_is_the_same_at_every_call_and_reaches_every_extension() -> None:
    seeds = make_seeds()
    assert len(seeds) >= 22
    files = list(fuzz_files(seeds, 0, 5 * len(seeds)))
    again = {extension: data for _, extension, data in fuzz_files(seeds, len(seeds), len(seeds))}
    assert [data for _, _, data in files[len(seeds) : 2 * len(seeds)]] == [again[name] for name in sorted(seeds)]
    for extension in seeds:
        damaged = [data for _, name, data in files if name == extension]
        assert sum(data != seeds[extension][0] for data in damaged) >= 3, extension


REPEAT = """
import io, os, sys
sys.path.insert(0, sys.argv[1])
from helpers.video_files import make_video
from fila_video.video_reading_fila_video import VideoReadError, read_frames

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

path = sys.argv[2] + "/video.mkv"
data = open(make_video(path, 60, width=320, height=240), "rb").read()
sources = [path, data, lambda: io.BytesIO(data), data[: len(data) // 2], data[:300]]
for number in range(int(sys.argv[3])):
    source = sources[number % 5]
    try:
        read_frames(source() if callable(source) else source, num_frames=8, size=(120, 160))
    except VideoReadError:
        pass
    if number == 50:
        memory, descriptors = resident(), len(os.listdir("/proc/self/fd"))
assert len(os.listdir("/proc/self/fd")) == descriptors
assert resident() < memory + 30, (memory, resident())
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_500_reads_in_one_process_leave_memory_and_descriptors_where_they_were(tmp_path) -> None:
    command = [sys.executable, "-c", REPEAT, str(TESTS), str(tmp_path), "500"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stderr[-2000:]
