"""Work of the host on several images at once: decoding, resizing, compressing and drawing."""

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

Value = TypeVar("Value")

# A device that fits a hundred images a second keeps no more cores than this busy with them.
_MOST_THREADS = 16


def thread_count() -> int:
    """Threads that share the work; most of it lets go of Python's lock."""
    return max(2, min(os.cpu_count() or 1, _MOST_THREADS))


@contextlib.contextmanager
def side_by_side() -> Iterator[Callable[[Callable[[], Value]], Callable[[], Value]]]:
    """A function that has a task done by one of several threads, and gives what waits for it.

    What waits returns the task's value or raises its exception. Those who use it bound how many
    tasks wait. On leaving, all tasks are done; where it is left by an exception, those that have
    not begun are not done. The threads end with their process, also where one of them hangs.
    """
    tasks: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
    given_up = threading.Event()

    def work() -> None:
        while (item := tasks.get()) is not None:
            task, future = item
            if given_up.is_set():
                future.cancel()
                continue
            try:
                future.set_result(task())
            except BaseException as error:  # raised where the result is asked for
                future.set_exception(error)

    threads = [
        threading.Thread(target=work, name=f"ssdnet-host-{number}", daemon=True)
        for number in range(thread_count())
    ]
    for thread in threads:
        thread.start()

    def submit(task: Callable[[], Value]) -> Callable[[], Value]:
        future: Future[Value] = Future()
        tasks.put((task, future))
        return future.result

    try:
        yield submit
    except BaseException:
        given_up.set()
        raise
    finally:
        for _ in threads:
            tasks.put(None)
        for thread in threads:
            thread.join(10.0 if given_up.is_set() else None)
