"""Reading ahead and writing behind, so that neither keeps the device waiting; both bounded.

Programs are loaded ahead of their use likewise.

Threads that hang, such as one that reads from a network drive that has gone, keep no process from
ending: they are waited for only so long, and end with the process.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from ssdnet_jax.runner.side_by_side import thread_count

Value = TypeVar("Value")

_POLL_SECONDS = 0.1  # how late a request to stop may be seen
_PATIENCE_SECONDS = 10.0  # for what is under way when a run is interrupted


@contextlib.contextmanager
def read_ahead(
    tasks: Iterable[Callable[[], Value]],
    ahead: int,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Iterator[Value]]:
    """Results of `tasks` in their order, computed in threads, at most `ahead` before their time.

    An exception of a task is raised where its result would have come; the rest still follows. The
    results end when `stop` says so, also while one is waited for.
    """
    rest = iter(tasks)
    waiting: queue.SimpleQueue[tuple[Callable[[], Value], Future[Value]] | None]
    waiting = queue.SimpleQueue()
    results: list[Future[Value]] = []
    ended = threading.Event()

    def work() -> None:
        while (item := waiting.get()) is not None:
            task, future = item
            if ended.is_set():
                continue
            try:
                future.set_result(task())
            except BaseException as error:  # raised where the result is asked for
                future.set_exception(error)

    threads = [_daemon(work, f"ssdnet-read-{number}") for number in range(thread_count())]

    class Results(Iterator[Value]):
        def __next__(self) -> Value:
            while len(results) < ahead and (task := next(rest, None)) is not None:
                results.append(Future())
                waiting.put((task, results[-1]))
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
        ended.set()
        for _ in threads:
            waiting.put(None)
        _join(threads, 1.0)


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
