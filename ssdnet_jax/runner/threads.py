"""Reading ahead and writing behind, so that neither keeps the device waiting; both bounded.

Between them work of the host is done on several images at once: decoding, resizing, compressing and
drawing. Programs are loaded ahead of their use likewise.

Threads that hang, such as one that reads from a network drive that has gone, keep no process from
ending: they are waited for only so long, and end with the process.
"""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

Value = TypeVar("Value")

# A device that fits a hundred images a second keeps no more cores than this busy with them.
_MOST_THREADS = 16
_POLL_SECONDS = 0.1  # how late a request to stop may be seen
_PATIENCE_SECONDS = 10.0  # for what is under way when a run is interrupted


class _Pool:
    """Threads that share tasks, as many as there are cores; most tasks let go of Python's lock."""

    def __init__(self, name: str):
        self._tasks: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]
        self._tasks = queue.SimpleQueue()
        self._given_up = threading.Event()
        count = max(2, min(os.cpu_count() or 1, _MOST_THREADS))
        self._threads = [_daemon(self._work, f"{name}-{number}") for number in range(count)]

    def submit(self, task: Callable[[], Value]) -> Future[Value]:
        """Has a task done; its value or its exception is the result of what is returned."""
        future: Future[Value] = Future()
        self._tasks.put((task, future))
        return future

    def end(self) -> None:
        """Waits until all tasks are done."""
        self._told_to_end()
        for thread in self._threads:
            thread.join()

    def give_up(self, seconds: float) -> None:
        """Tasks that have not begun are cancelled; the others have so long."""
        self._given_up.set()
        self._told_to_end()
        _join(self._threads, seconds)

    def _told_to_end(self) -> None:
        for _ in self._threads:
            self._tasks.put(None)

    def _work(self) -> None:
        while (item := self._tasks.get()) is not None:
            task, future = item
            if self._given_up.is_set():
                future.cancel()
                continue
            try:
                future.set_result(task())
            except BaseException as error:  # raised where the result is asked for
                future.set_exception(error)


@contextlib.contextmanager
def side_by_side() -> Iterator[Callable[[Callable[[], Value]], Callable[[], Value]]]:
    """A function that has a task done by one of several threads, and gives what waits for it.

    What waits returns the task's value or raises its exception. Those who use it bound how many
    tasks wait. On leaving, all tasks are done; where it is left by an exception, those that have
    not begun are not done. The threads end with their process, also where one of them hangs.
    """
    pool = _Pool("ssdnet-host")
    try:
        yield lambda task: pool.submit(task).result
    except BaseException:
        pool.give_up(_PATIENCE_SECONDS)
        raise
    pool.end()


@contextlib.contextmanager
def read_ahead(
    tasks: Iterable[Callable[[], Value]],
    ahead: int,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Iterator[Value]]:
    """Results of `tasks` in their order, computed in threads, at most `ahead` before they are due.

    An exception of a task is raised where its result would have come; the rest still follows. The
    results end when `stop` says so, also while one is waited for.
    """
    rest = iter(tasks)
    results: list[Future[Value]] = []
    pool = _Pool("ssdnet-read")

    class Results(Iterator[Value]):
        def __next__(self) -> Value:
            while len(results) < ahead and (task := next(rest, None)) is not None:
                results.append(pool.submit(task))
            if not results:
                raise StopIteration
            future = results[0]
            while not future.done():
                if stop():
                    raise StopIteration
                # Not without limit: the handler of a signal runs between two waits.
                with contextlib.suppress(TimeoutError):
                    future.exception(timeout=_POLL_SECONDS)
            return results.pop(0).result()

    try:
        yield Results()
    finally:
        pool.give_up(1.0)


class Writer:
    """Takes tasks, which one thread does in their order; see `write_behind`."""

    def __init__(self, most: int):
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue(most)
        self._failure: list[BaseException] = []
        self._thread = _daemon(self._work, "ssdnet-write")

    def __call__(self, task: Callable[[], None]) -> None:
        """Hands a task on; waits while too many are undone."""
        while True:
            self.check()
            with contextlib.suppress(queue.Full):
                self._tasks.put(task, timeout=_POLL_SECONDS)
                return

    @property
    def failed(self) -> bool:
        """Whether a task has failed, after which nothing more is done."""
        return bool(self._failure)

    def check(self) -> None:
        """Raises the exception of a task that has failed."""
        if self._failure:
            raise self._failure[0]

    def end(self, patience: float | None) -> None:
        """Waits until all tasks are done, or for so many seconds."""
        deadline = None if patience is None else time.monotonic() + patience
        with contextlib.suppress(queue.Full):
            self._tasks.put(None, timeout=patience)
        self._thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if not self._failure:
                try:
                    task()
                except BaseException as error:  # raised in the caller's thread
                    self._failure.append(error)


@contextlib.contextmanager
def write_behind(most: int) -> Iterator[Writer]:
    """A function that takes tasks, which one thread does in their order.

    It waits while `most` tasks are undone, and raises the exception of an earlier task, after
    which nothing more is done. On leaving, all tasks are done, unless one failed; where it is left
    by an exception, such as that of Ctrl-C, they have ten seconds for it.
    """
    writer = Writer(most)
    try:
        yield writer
    except BaseException:
        writer.end(_PATIENCE_SECONDS)
        raise
    writer.end(None)
    writer.check()


@contextlib.contextmanager
def in_advance() -> Iterator[Callable[[Callable[[], object]], None]]:
    """A function that has tasks done by one thread, in their order, which nobody waits for.

    They make ready what others would have to do themselves a little later: what a task raises is
    dropped, for the others meet it too. On leaving, tasks that have not begun are dropped.
    """
    tasks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
    ended = threading.Event()

    def work() -> None:
        while (task := tasks.get()) is not None and not ended.is_set():
            with contextlib.suppress(Exception):
                task()

    thread = _daemon(work, "ssdnet-load")
    try:
        yield tasks.put
    finally:
        ended.set()
        tasks.put(None)
        _join([thread], 1.0)


def hanging() -> bool:
    """Whether a thread of a run that is over is still at work, and would outlive its process."""
    return any(t.name.startswith("ssdnet-") and t.is_alive() for t in threading.enumerate())


def _daemon(work: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


def _join(threads: Iterable[threading.Thread], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
