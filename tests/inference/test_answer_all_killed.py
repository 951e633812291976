"""Runs of `answer_all` whose processes die: nothing is lost and nothing is written twice."""

import multiprocessing
import os
import random
import subprocess
import sys
import time

import pytest
from fila_video import answer_all
from fila_video.commands.cli import main
from fila_video.long_video.engines import TaskError, WorkerDied, run_workers
from helpers.answer_runs import QUESTION, rows_of, write_records


class DiesOf:
    """A worker's task: doubles numbers, and takes its process down at some."""

    def __init__(self, deadly, at_start=False):
        self.deadly, self.at_start = deadly, at_start

    def __call__(self, number):
        if self.at_start:
            os._exit(1)
        return self.double

    def double(self, item):
        if item in self.deadly:
            os._exit(1)
        if item < 0:
            raise ValueError("negative")
        return 2 * item


@pytest.mark.slow
def test_what_kills_a_worker_is_found_and_its_neighbors_live() -> None:
    items = [0, 1, 2, -1, 4, 5]
    results = {n: (result, error) for n, result, error in run_workers(DiesOf({2}), iter(items), workers=2)}
    assert {n: result for n, (result, error) in results.items() if error is None} == {0: 0, 1: 2, 4: 8, 5: 10}
    assert isinstance(results[2][1], WorkerDied) and "died of 2, perhaps" in str(results[2][1])
    assert type(results[3][1]) is TaskError and str(results[3][1]) == "negative"


@pytest.mark.slow
def test_workers_that_cannot_start_or_all_die_end_the_run() -> None:
    with pytest.raises(TaskError, match="before it was ready"):
        list(run_workers(DiesOf(set(), at_start=True), range(3)))
    with pytest.raises(WorkerDied):
        list(run_workers(DiesOf(set(range(1, 99))), range(99)))


class HasAProcess:
    """A task with a process of its own, which ends only when it is told to, as an engine's does."""

    def __init__(self, number):
        self.word = multiprocessing.Event()
        multiprocessing.Process(target=self.word.wait).start()

    def __call__(self, item):
        return 2 * item

    def close(self):
        self.word.set()


def test_workers_end_though_their_tasks_have_processes_of_their_own() -> None:
    assert sorted(result for _, result, _ in run_workers(HasAProcess, [1, 2])) == [2, 4]


@pytest.mark.slow
def test_ray_gives_the_same_rows(videos, tmp_path) -> None:
    pytest.importorskip("ray")
    settings = {"question": QUESTION, "max_new_tokens": 8, "progress": False}
    for engine in ("local", "ray"):
        done = answer_all(videos, tmp_path / engine, engine=engine, **settings)
        assert (done.answered, done.failed) == (4, 1)
    assert rows_of(tmp_path / "local") == rows_of(tmp_path / "ray")


# Answers without a model, so that a process starts at once; all else is the real thing.
QUICK_RUN = """
import sys, time
from fila_video.inference import answer_all as module
from fila_video.inference.output import Answered

class Quick:
    def __init__(self, pipe, batch_size, options): pass
    def __call__(self, videos):
        time.sleep(0.005)
        return [Answered(asked.id, asked.question, f"{asked.id} is answered") for v in videos for asked in v.asked]

class Pipe:
    class model:
        class config: name_or_path = "quick"
    def __call__(self): pass

module.PipelineWorker, module.pipeline_settings, module.check_options = Quick, lambda pipe: {}, lambda *options: None
module.answer_all(sys.argv[1], sys.argv[2], "What?", model=Pipe(), progress=False, retry_errors=True)
"""


def test_a_run_that_is_killed_twenty_times_loses_nothing_and_writes_nothing_twice(tmp_path) -> None:
    records = write_records(
        tmp_path, *({"id": f"{n}", "video": f"{n % 40}.mp4", "questions": ["a", "b"]} for n in range(200))
    )
    command, dice = [sys.executable, "-c", QUICK_RUN, str(records)], random.Random(0)
    subprocess.run([*command, str(tmp_path / "whole.jsonl")], check=True, timeout=120)
    whole, output, kills = rows_of(tmp_path / "whole.jsonl"), tmp_path / "out.jsonl", 0
    assert len(whole) == 400
    while True:
        size = output.stat().st_size if output.exists() else 0
        running = subprocess.Popen([*command, str(output)])
        patience = time.monotonic() + 120
        # Killed soon after it has written something new, which takes as long as the machine needs.
        while kills < 20 and running.poll() is None and time.monotonic() < patience:
            if output.exists() and output.stat().st_size > size:
                time.sleep(dice.random() / 200)
                running.kill()
                kills += 1
                break
            time.sleep(0.001)
        if running.wait(timeout=120) == 0:
            break
    assert kills >= 5  # a fast machine is done before all twenty
    assert rows_of(output) == whole


@pytest.mark.slow
def test_a_command_that_is_killed_goes_on_with_a_real_model(videos, tmp_path) -> None:
    records = write_records(
        tmp_path,
        *({"id": f"{n}", "video": str(videos / f"{n % 3}.mp4"), "video_start": n / 100} for n in range(12)),
        {"id": "broken", "video": str(videos / "broken.mp4")},
    )
    whole, output = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    command = ["answer-all", "--records", str(records), "--question", QUESTION, "--max-new-tokens", "8"]
    assert main([*command, "--output", str(whole)]) == 3
    running = subprocess.Popen(
        [sys.executable, "-m", "fila_video.commands.cli", *command, "--output", str(output)],
        stderr=subprocess.DEVNULL,
    )
    while running.poll() is None and not (output.exists() and output.stat().st_size):
        time.sleep(0.01)
    running.kill()
    running.wait()
    assert main([*command, "--output", str(output), "--workers", "2"]) in (0, 3)
    assert rows_of(output) == rows_of(whole) and len(rows_of(output)) == 13
