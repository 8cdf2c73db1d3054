"""
A few threads for requests, which nobody waits for at the end of the program.

The standard library's pool is joined when the interpreter ends, so that a request that gets no
answer would hold up a run that has failed or was told to stop, for minutes. No I/O here.
"""

from __future__ import annotations

from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Workers:
    """At most so many threads, started as they are needed."""

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._started = 0
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def submit(self, task: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> Future[_T]:
        """Have a task done, in the order of asking; its outcome is the future's."""
        future: Future[_T] = Future()

        def do() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = task(*arguments, **named)
            except BaseException as error:  # noqa: BLE001  it is raised where the result is asked for
                future.set_exception(error)
            else:
                future.set_result(result)

        self._tasks.put(do)
        if self._started < self._most:
            self._started += 1
            Thread(target=_work, args=(self._tasks,), name=self._name, daemon=True).start()
        return future

    def stop(self) -> None:
        """Forget what has not begun, and let the threads end after what they are at."""
        while True:
            try:
                self._tasks.get_nowait()
            except Empty:
                break
        for _ in range(self._started):
            self._tasks.put(None)
        self._started = 0


def _work(tasks: SimpleQueue[Callable[[], None] | None]) -> None:
    while (task := tasks.get()) is not None:
        task()
        del task  # with its arguments, which are long
