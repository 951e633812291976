"""Work on several threads, delivered in order, never far ahead of whoever takes the results."""

import threading
from collections.abc import Callable, Iterator
from typing import Any


class Crew:
    """Runs `work` on the tasks 0 to `tasks - 1` in `threads` threads; gives the results in the order of the tasks.

    `work(numbers)` is a generator. It takes the numbers of its tasks from the iterator `numbers` as it goes and yields
    `(number, result)`, any number of results a task, in order. At most `room` results of a task wait to be taken, and
    no task begins that is more than `ahead` behind the one whose results are being taken. An error in a thread is
    raised to the consumer. When the consumer stops early, every thread closes its generator and ends before the
    iteration does.
    """

    def __init__(
        self,
        work: Callable[[Iterator[int]], Iterator[tuple[int, Any]]],
        tasks: int,
        threads: int,
        room: int,
        ahead: int,
    ):
        self._work, self._tasks, self._threads, self._room, self._ahead = work, tasks, threads, room, ahead
        self._changed = threading.Condition()
        self._ready: dict[int, list] = {number: [] for number in range(tasks)}
        self._over: set[int] = set()
        self._next = 0  # the first task that no thread has
        self._current = 0  # the task whose results are being taken
        self._stopped = False
        self._error: BaseException | None = None

    def __iter__(self) -> Iterator[Any]:
        threads = [threading.Thread(target=self._run, daemon=True) for _ in range(self._threads)]
        for thread in threads:
            thread.start()
        try:
            while self._current < self._tasks:
                yield from self._take()
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            for thread in threads:
                thread.join()

    def _take(self) -> list:
        with self._changed:
            current = self._current
            self._changed.wait_for(lambda: self._ready[current] or current in self._over or self._error)
            results, self._ready[current] = self._ready[current], []
            if current in self._over:
                self._current += 1
            elif not results:
                raise self._error
            self._changed.notify_all()
        return results

    def _run(self):
        results = self._work(self._numbers())
        try:
            for number, result in results:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped or len(self._ready[number]) < self._room)  # noqa: B023
                    if self._stopped:
                        return
                    self._ready[number].append(result)
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()
        finally:
            results.close()

    def _numbers(self) -> Iterator[int]:
        """The tasks of one thread. A task is over when the next one is asked for."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._next - self._current <= self._ahead)
                if self._stopped or self._next >= self._tasks:
                    return
                number = self._next
                self._next += 1
            yield number
            with self._changed:
                self._over.add(number)
                self._changed.notify_all()


__all__ = ["Crew"]
