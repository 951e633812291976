"""Running many independent tasks: on the cores of one machine, or on a cluster through Ray Data.

Both run the same function on the same items, so that what they write cannot differ; they only differ in the order in
which results come back.
"""

import concurrent.futures
import contextlib
import logging
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

ENGINES = ("local", "ray")

Outcome = tuple[Any, str | None]  # what a task returned, or the message of its error


class TaskError(ValueError):
    """A task failed on a worker; the message is the one of its error."""


def run_tasks(
    task: Callable, items: Iterable, count: int, *, engine: str = "local", workers: int = 1
) -> Iterator[tuple[int, object]]:
    """`(number of the item, task(item))`, as they are done.

    Args:
        task (`Callable`):
            A function at the top of a module, or a `functools.partial` of one; its errors of the kinds `ValueError`
            and `OSError` come back as [`TaskError`].
        items (`Iterable`):
            Picklable; with `local` they are taken as workers come free, so that a generator costs no memory.
        count (`int`):
            The number of items.
        engine (`str`, *optional*, defaults to `"local"`):
            `"local"`, or `"ray"`, which runs on the cluster that `ray.init()` finds or on this machine.
        workers (`int`, *optional*, defaults to `1`):
            Processes of the local engine (1: this process); Ray's tasks at once, 0 for as many as fit.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {ENGINES}, got {engine!r}.")
    if count == 0:
        return
    if engine == "ray":
        results = _run_ray(task, items, count, workers)
    elif min(workers, count) <= 1:
        results = ((number, _attempt(task, item)) for number, item in enumerate(items))
    else:
        results = _run_local(task, items, min(workers, count))
    for number, (result, error) in results:
        if error is not None:
            raise TaskError(error)
        yield number, result


def default_workers() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _attempt(task: Callable, item: Any) -> Outcome:
    try:
        return task(item), None
    except (ValueError, OSError) as error:
        return None, str(error)


def _run_local(task: Callable, items: Iterable, workers: int) -> Iterator[tuple[int, Outcome]]:
    # Never a plain fork: decoders and libraries of this process may hold threads and locks.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if context.get_start_method() == "forkserver":
        # Imported once, not by every worker.
        context.set_forkserver_preload(["fila_video.long_video.files"])
    items = enumerate(items)
    pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_with_parent)
    try:
        running = {}
        while True:
            while len(running) < 2 * workers and (following := next(items, None)) is not None:
                number, item = following
                running[pool.submit(_attempt, task, item)] = number
            if not running:
                return
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                yield running.pop(future), future.result()
    except concurrent.futures.BrokenExecutor as error:
        raise TaskError("A worker process died, perhaps for want of memory; use fewer workers.") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def running(engine: str) -> Iterator[None]:
    """Keeps Ray running over several calls of `run_tasks`: on a cluster that is there, else on this machine."""
    if engine != "ray":
        yield
        return
    ray = _import_ray()
    if ray.is_initialized():
        yield
        return
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        yield
    finally:
        ray.shutdown()


def _import_ray() -> ModuleType:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise TaskError("The engine 'ray' takes the package Ray Data: pip install 'fila-video[ray]'.") from error
    return ray


def _run_ray(task: Callable, items: Iterable, count: int, workers: int) -> Iterator[tuple[int, Outcome]]:
    ray = _import_ray()
    with running("ray"):
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)  # the build has a progress bar of its own
        tasks = ray.put(list(items))
        blocks = min(count, max(4 * int(ray.cluster_resources().get("CPU", 1)), workers))
        done = ray.data.range(count, override_num_blocks=blocks).map(
            _RayTask(task, tasks), compute=ray.data.TaskPoolStrategy(size=workers or None)
        )
        for row in done.iter_rows():
            yield row["number"], pickle.loads(row["outcome"])


class _RayTask:
    """The task as Ray Data runs it, on a row that holds the item's number."""

    def __init__(self, task: Callable, items: Iterable) -> None:
        self._task, self._items = task, items

    def __call__(self, row: dict) -> dict:
        import ray

        # Pickled: a column of Arrow would want one type for all outcomes.
        return {"number": row["id"], "outcome": pickle.dumps(_attempt(self._task, ray.get(self._items)[row["id"]]))}


__all__ = ["ENGINES", "TaskError", "default_workers", "run_tasks", "running"]
