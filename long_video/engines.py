"""Running many independent tasks: on the cores of one machine, or on a cluster through Ray Data.

Both run the same function on the same items, so that what they write cannot differ; they only differ in the order in
which results come back.
"""

import concurrent.futures
import contextlib
import itertools
import logging
import multiprocessing
import multiprocessing.util
import os
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.context import BaseContext
from types import ModuleType
from typing import Any

ENGINES = ("local", "ray")
RAY_SLICE = 4096  # items that Ray holds at a time

_TASK: Callable | None = None  # of this process, where it is a worker


class TaskError(ValueError):
    """A task failed on a worker; the message is the one of its error."""


class WorkerDied(TaskError):
    """The process that worked on an item ended without a word, and did so again with this item alone."""


Outcome = tuple[Any, TaskError | None]  # what a task returned, or its error


def run_tasks(
    task: Callable, items: Iterable, count: int, *, engine: str = "local", workers: int = 1
) -> Iterator[tuple[int, object]]:
    """`(number of the item, task(item))`, as they are done.

    Args:
        task (`Callable`):
            A function at the top of a module, or a `functools.partial` of one; its errors of the kinds `ValueError`
            and `OSError` come back as [`TaskError`].
        items (`Iterable`):
            Picklable; they are taken as workers come free, so that a generator costs no memory.
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
        results = _run_ray(_RayTask(task), items, workers)
    elif min(workers, count) <= 1:
        results = ((number, _attempt(task, item)) for number, item in enumerate(items))
    else:
        results = _run_local(_ready, (task,), items, min(workers, count))
    for number, (result, error) in results:
        if error is not None:
            raise error
        yield number, result


def run_workers(
    make: Callable[[int], Callable], items: Iterable, *, engine: str = "local", workers: int = 1, gpus: int = 0
) -> Iterator[tuple[int, object, TaskError | None]]:
    """`(number of the item, result, error)`, as they are done, of tasks that take long to get ready.

    Args:
        make (`Callable[[int], Callable]`):
            Is called once in each worker, with its number, and gives the task. Its `ValueError`s and `OSError`s come
            back with each item, as the task's own do.
        items (`Iterable`):
            Picklable; they are taken as workers come free.
        engine (`str`, *optional*, defaults to `"local"`):
            `"local"`, in processes of their own also where `workers` is 1: what kills a worker, such as a file that
            its decoder cannot bear, ends neither the run nor its neighbors. Or `"ray"`, a class actor a worker.
        workers (`int`, *optional*, defaults to `1`):
            How many.
        gpus (`int`, *optional*, defaults to 0):
            That Ray gives to each worker.
    """
    if engine == "ray":
        results = _run_ray(_RayWorker, items, workers, make=make, gpus=gpus)
    else:
        results = _run_local(make, None, items, workers)
    for number, (result, error) in results:
        yield number, result, error


def default_workers() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _attempt(task: Callable, item: Any) -> Outcome:
    try:
        return task(item), None
    except (ValueError, OSError) as error:
        return None, TaskError(str(error))


def _ready(task: Callable) -> Callable:
    return task


def _start_worker(make: Callable, arguments: tuple | None, started: Any, ready: Any) -> None:
    """In a new process: remembers how the task is made."""
    global _TASK
    _leave_with_parent()
    with started.get_lock():
        number = started.value
        started.value += 1
    _TASK = _Later(make, (number,) if arguments is None else arguments, ready)
    # Before a process ends it waits for those that it started, such as an engine of the task's, which wait for it.
    multiprocessing.util.Finalize(None, _TASK.close, exitpriority=1)


class _Later:
    """A task that is made when its first item comes, so that an error of the making is the item's."""

    def __init__(self, make: Callable, arguments: tuple, ready: Any = None) -> None:
        self.make, self.arguments, self.ready, self.task = make, arguments, ready, None

    def __call__(self, item: Any) -> Any:
        if self.task is None:
            self.task = self.make(*self.arguments)
            if self.ready is not None:
                self.ready.value = 1
        return self.task(item)

    def close(self) -> None:
        """Ends what the task has started, where it has something to end."""
        if hasattr(self.task, "close"):
            self.task.close()


def _work(item: Any) -> Outcome:
    return _attempt(_TASK, item)


def _run_local(
    make: Callable, arguments: tuple | None, items: Iterable, workers: int
) -> Iterator[tuple[int, Outcome]]:
    # Never a plain fork: decoders and libraries of this process may hold threads and locks.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if context.get_start_method() == "forkserver":
        # Imported once, not by every worker.
        context.set_forkserver_preload(["fila_video.long_video.files"])
    items, deaths = enumerate(items), 0
    while True:
        suspects = []
        for number, outcome, item in _run_pool(context, make, arguments, items, workers):
            if outcome is None:
                suspects.append((number, item))
                continue
            deaths = 0
            yield number, outcome
        if not suspects:
            return
        # A worker died, and which item it was shows when each of those in work runs alone.
        for suspect in sorted(suspects):
            for number, outcome, _ in _run_pool(context, make, arguments, iter([suspect]), 1):
                deaths = deaths + 1 if outcome is None else 0
                died = WorkerDied(
                    f"A worker process died of {_shown(suspect[1])}, perhaps for want of memory; use fewer workers."
                )
                if deaths > max(4, 2 * workers):
                    raise died
                yield number, (None, died) if outcome is None else outcome


def _shown(item: Any) -> str:
    text = repr(item)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _run_pool(
    context: BaseContext, make: Callable, arguments: tuple | None, items: Iterator[tuple[int, Any]], workers: int
) -> Iterator[tuple[int, Outcome | None, Any]]:
    """Items with their outcomes, until there are no more or a worker dies: then `None` for those that were in work."""
    started, ready = context.Value("i", 0), context.Value("i", 0)
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(make, arguments, started, ready)
    )
    running, broken = {}, False
    try:
        while True:
            # Twice as many as there are workers, so that none waits for its next; not all, since items come as needed.
            while not broken and len(running) < 2 * workers and (following := next(items, None)) is not None:
                try:
                    running[pool.submit(_work, following[1])] = following
                except concurrent.futures.BrokenExecutor:
                    # A worker died between two items: this one never reached any, and will run alone.
                    broken = True
                    if ready.value:
                        yield following[0], None, following[1]
            if broken and not ready.value:
                raise TaskError(
                    "A worker process died before it was ready: for want of memory, or because a script starts the "
                    "work without `if __name__ == '__main__':`."
                )
            if not running:
                return
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                number, item = running.pop(future)
                try:
                    outcome = future.result()
                except concurrent.futures.BrokenExecutor:
                    outcome, broken = None, True
                    if not ready.value:
                        break
                yield number, outcome, item
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


def _run_ray(
    task: "_RayTask | type[_RayWorker]", items: Iterable, workers: int, make: Callable | None = None, gpus: int = 0
) -> Iterator[tuple[int, Outcome]]:
    ray = _import_ray()
    with running("ray"):
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)  # who calls has a progress bar of their own
        if make is None:
            options = {"compute": ray.data.TaskPoolStrategy(size=workers or None)}
        else:
            options = {
                "compute": ray.data.ActorPoolStrategy(size=workers),
                "fn_constructor_args": (make,),
                "num_gpus": gpus or None,
            }
        items, limit = enumerate(items), max(4 * int(ray.cluster_resources().get("CPU", 1)), workers)
        # Pickled: a column of Arrow would want one type for all items and outcomes.
        while part := [
            {"number": number, "item": pickle.dumps(item)} for number, item in itertools.islice(items, RAY_SLICE)
        ]:
            blocks = min(len(part), limit if make is None else len(part))  # a slow task's outcomes come one by one
            for row in ray.data.from_items(part, override_num_blocks=blocks).map(task, **options).iter_rows():
                yield row["number"], pickle.loads(row["outcome"])


class _RayTask:
    """The task as Ray Data runs it, on a row that holds a pickled item."""

    def __init__(self, task: Callable) -> None:
        self._task = task

    def __call__(self, row: dict) -> dict:
        return {"number": row["number"], "outcome": pickle.dumps(_attempt(self._task, pickle.loads(row["item"])))}


class _RayWorker(_RayTask):
    """A class actor: Ray Data builds it once a worker. The devices that it may use, Ray has chosen."""

    def __init__(self, make: Callable) -> None:
        super().__init__(_Later(make, (0,)))


__all__ = ["ENGINES", "TaskError", "WorkerDied", "default_workers", "run_tasks", "run_workers", "running"]
