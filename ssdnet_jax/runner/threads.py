"""Reading ahead and writing behind, so that neither keeps the device waiting; both bounded."""

import collections
import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ssdnet_jax.runner.side_by_side import thread_count

Value = TypeVar("Value")


@contextlib.contextmanager
def read_ahead(tasks: Iterable[Callable[[], Value]], ahead: int) -> Iterator[Iterator[Value]]:
    """Results of `tasks` in their order, computed in threads, at most `ahead` before their time.

    An exception of a task is raised where its result would have come; the rest still follows.
    """
    rest = iter(tasks)
    waiting: collections.deque[Future[Value]] = collections.deque()
    pool = ThreadPoolExecutor(thread_count(), thread_name_prefix="ssdnet-read")

    class Results(Iterator[Value]):
        def __next__(self) -> Value:
            while len(waiting) < ahead and (task := next(rest, None)) is not None:
                waiting.append(pool.submit(task))
            if not waiting:
                raise StopIteration
            return waiting.popleft().result()

    try:
        yield Results()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def write_behind(most: int) -> Iterator[Callable[[Callable[[], None]], None]]:
    """A function that takes tasks, which one thread does in their order.

    It waits while `most` tasks are undone, and raises the exception of an earlier task, after
    which nothing more is done. On leaving, all tasks are done, unless one failed.
    """
    tasks: queue.Queue[Callable[[], None] | None] = queue.Queue(most)
    failure: list[BaseException] = []

    def work() -> None:
        while (task := tasks.get()) is not None:
            if not failure:
                try:
                    task()
                except BaseException as error:  # raised in the caller's thread
                    failure.append(error)

    thread = threading.Thread(target=work, name="ssdnet-write")
    thread.start()

    def submit(task: Callable[[], None]) -> None:
        if failure:
            raise failure[0]
        tasks.put(task)

    try:
        yield submit
    finally:
        tasks.put(None)
        thread.join()
    if failure:
        raise failure[0]
