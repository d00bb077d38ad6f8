"""The same run over a Ray cluster: each task is a small run of its own, on one device.

A task scores a few images into a folder of its own, by the functions of a local run, and returns
the files and rows that lie there. The driver, the process that a user started, reads the images
and puts what returns into the work folder: nodes need no common file system. Placing the tasks,
and repeating those of a lost node, is left to Ray.
"""

import contextlib
import dataclasses
import io
import itertools
import logging
import operator
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ssdnet_jax.core import registry
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.data.images import DecodedImage
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.methods.base import Method
from ssdnet_jax.runner import startup
from ssdnet_jax.runner.page import Page, open_page
from ssdnet_jax.runner.run import DEFAULT_OPTIONS, Options, Summary
from ssdnet_jax.runner.run import run as local_run
from ssdnet_jax.runner.sources import Origin, Reader, read_with_origin
from ssdnet_jax.runner.stream import IMAGE_ERRORS
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.threads import read_ahead
from ssdnet_jax.runner.workdir import RESULT_FOLDERS, Row, Workdir, open_workdir, read_rows

if TYPE_CHECKING:
    import ray

# A task that has lost so many workers is what kills them; its images fail and the others go on.
_RETRIES = 10
_GPU_LANES = 64  # images of one filling where the workers choose the lanes (`lanes_that_fit`)
# Ray ends a process after each task on a GPU, which frees the memory that JAX holds; the next one
# takes seconds to start, so that a task is worth several fillings of the lanes.
_GPU_FILLINGS = 4
_BATCH_BYTES = 2**29  # of decoded images: tasks that wait hold theirs in the driver's memory
_POLL_SECONDS = 0.5  # how late a request to stop may be seen

# What a task is given for an image: its pixels, or why it cannot be read.
_Source = DecodedImage | Exception


class _Shared(NamedTuple):
    """What all tasks of a run take, sent to a node once: the method, and the registered by name."""

    method: Method
    registered: Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class _Results:
    """What a task returns: rows, problems, and files by path relative to the work folder."""

    rows: Sequence[Row]
    files: Mapping[str, bytes]
    problems: Sequence[str]


class _Problems(Terminal):
    """Keeps problems for the driver's terminal, and shows nothing."""

    def __init__(self):
        super().__init__(io.StringIO(), io.StringIO())
        self.texts: list[str] = []

    def problem(self, text: str) -> None:
        self.texts.append(text)


@contextlib.contextmanager
def joined(address: str | None) -> Iterator[str]:
    """Joins a Ray cluster for as long as the context lasts; gives its device in words.

    Args:
      address: "HOST:PORT" of the head node, or "auto" for the cluster this machine belongs to.
        None: $RAY_ADDRESS, or the cluster this machine belongs to, or a new one of this machine
        alone. A Ray that this process has already joined is used, and stays.

    Raises:
      ConfigError: Ray is not installed.
      InputError: there is no cluster at the address, or its nodes cannot run ssdnet.
    """
    ray = _import_ray()
    with contextlib.ExitStack() as stack:
        if not ray.is_initialized():
            _join(address)
            stack.callback(ray.shutdown)
        kind, count = _slots()
        try:
            device = ray.get(_remote(worker_device).remote(kind))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise error.cause from error
            raise InputError(
                f"a Ray worker cannot run ssdnet ({_one_line(error.cause)}); expected ssdnet-jax "
                f"on every node"
            ) from error
        yield f"{device}, {count} at once by Ray"


def run(
    method: Method,
    sources: Mapping[str, Reader],
    workdir: Workdir,
    terminal: Terminal,
    *,
    options: Options = DEFAULT_OPTIONS,
    page: Page | None = None,
) -> Summary:
    """`runner.run.run` over the cluster that has been `joined`.

    A task has one GPU, or where the cluster has none, one CPU. Results are those of a local run
    with the same number of lanes on the same kind of device, bit for bit.

    Args:
      method: likewise.
      sources: read in this process.
      workdir: on this machine.
      terminal: likewise.
      options: `devices` is Ray's to decide. Lanes that are not given are as many as a GPU's memory
        holds, but no more than share out all fits over the cluster.
      page: likewise.
    """
    import ray

    started = time.monotonic()
    todo = [name for name in sources if name not in workdir.finished]
    kind, slots = _slots()
    seeds = method.config.fit.seeds
    fits = len(sources) * seeds  # of all images, as in `runner.run`
    most_lanes = fits if options.lanes else -(-fits // slots)
    images = batch_size(kind, options.lanes, most_lanes, seeds, len(todo), slots)
    task_options = {
        "lanes": options.lanes,
        "devices": 1,
        "most_lanes": most_lanes,
        "save_params": options.save_params,
        "heatmaps": options.heatmaps,
    }
    shared = ray.put(_Shared(method, registry.foreign_entries()))
    task = _remote(_run_batch)
    terminal.start_run(len(todo))
    finished = failed = 0
    pending: dict[ray.ObjectRef, list[str]] = {}
    origins: dict[str, Origin | None] = {}
    reading = (_reading(name, sources[name], origins) for name in todo)
    with (
        contextlib.nullcontext(page) if page else open_page(workdir, list(sources)) as shown,
        read_ahead(reading, images + 2, stop=options.stop) as read,
    ):
        batches = cut_batches(zip(todo, read, strict=False), images, _BATCH_BYTES)
        try:
            while not options.stop():
                # A few more tasks than can run, so that no device waits for the driver.
                while len(pending) < slots + slots // 4 + 1 and (batch := next(batches, None)):
                    ref = task.remote(kind, batch, shared, task_options)
                    pending[ref] = [name for name, _ in batch]
                if not pending:
                    break
                terminal.stage(f"{sum(map(len, pending.values()))} images with Ray")
                ready, _ = ray.wait(list(pending), timeout=_POLL_SECONDS)
                for ref in ready:
                    results = _get(ref, pending.pop(ref))
                    _write(results, workdir, terminal, shown, origins)
                    ok = sum(row.status == "ok" for row in results.rows)
                    finished, failed = finished + ok, failed + len(results.rows) - ok
        finally:
            for ref in pending:
                ray.cancel(ref, force=True)
    workdir.order(sources)
    seconds = time.monotonic() - started
    return Summary(finished, failed, len(sources) - len(todo), seconds, stopped=options.stop())


def _import_ray() -> Any:
    """Ray, without its usage statistics.

    Raises:
      ConfigError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ConfigError(
            f"--executor=ray: Ray cannot be imported ({_one_line(error)}); expected it installed, "
            f"pip install 'ssdnet-jax[ray]'"
        ) from error
    return ray


def _join(address: str | None) -> None:
    import ray

    address = address or os.environ.get("RAY_ADDRESS") or None
    found = f"{address or 'this machine'}: found no Ray cluster to join"
    expected = "expected HOST:PORT of a running head node, 6379 by default, or auto"
    host, _, port = (address or "").rpartition(":")
    try:
        if host and port.isdigit() and "://" not in host:  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            include_dashboard=False,
        )
    except (OSError, OverflowError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise InputError(f"{found} ({_one_line(error)}); {expected}") from error


def _slots() -> tuple[str, int]:
    """The kind of device that tasks get, and how many of it the cluster has.

    Raises:
      InputError: it has none.
    """
    import ray

    resources = ray.cluster_resources()
    for kind in ("GPU", "CPU"):
        if (count := int(resources.get(kind, 0))) > 0:
            return kind, count
    raise InputError("the Ray cluster has no CPU and no GPU; expected at least one worker node")


def _remote(function: Callable[..., Any]) -> Any:
    """The function as a Ray task on one device, repeated where its worker is lost."""
    import ray

    kind, _ = _slots()
    device = {"num_gpus": 1} if kind == "GPU" else {"num_cpus": 1}
    return ray.remote(**device, max_retries=_RETRIES)(function)


def batch_size(kind: str, lanes: int, most_lanes: int, seeds: int, images: int, slots: int) -> int:
    """Images of a task: enough to fill its lanes, on a GPU several times if there are as many."""
    lanes = min(lanes or (_GPU_LANES if kind == "GPU" else 1), most_lanes)
    filling = -(-lanes // seeds)
    if kind == "CPU":
        return filling
    return max(filling, min(_GPU_FILLINGS * filling, -(-images // slots)))


def _reading(name: str, read: Reader, origins: dict[str, Origin | None]) -> Callable[[], _Source]:
    def task() -> _Source:
        try:
            source, origins[name] = read_with_origin(read)
            return source
        except IMAGE_ERRORS as error:  # the task raises it again, where it gets its row
            return error

    return task


def cut_batches(
    images: Iterable[tuple[str, _Source]], most: int, most_bytes: int
) -> Iterator[list[tuple[str, _Source]]]:
    """Cuts a stream into lists of at most `most` images and about `most_bytes` of pixels."""
    batch: list[tuple[str, _Source]] = []
    size = 0
    for name, source in images:
        pixels = source.pixels.nbytes if isinstance(source, DecodedImage) else 0
        if batch and (len(batch) == most or size + pixels > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append((name, source))
        size += pixels
    if batch:
        yield batch


def _get(ref: "ray.ObjectRef", names: list[str]) -> _Results:
    """The results of a task; error rows if each of its workers died."""
    import ray

    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:  # a fault of the program, as in a local run
        raise error.cause from error
    except ray.exceptions.RayError as error:
        reason = (
            f"its worker was lost {_RETRIES + 1} times (Ray: {type(error).__name__}); expected "
            f"nodes with enough memory, or fewer --lanes"
        )
        rows = [Row(path=name, status="error", error=reason) for name in names]
        return _Results(rows, {}, [f"{name}: {reason}" for name in names])


def _write(
    results: _Results,
    workdir: Workdir,
    terminal: Terminal,
    page: Page,
    origins: dict[str, Origin | None],
) -> None:
    """Files first, then the rows that say so."""
    workdir.check()
    for problem in results.problems:
        terminal.problem(problem)
    for name, content in results.files.items():
        write_atomically(workdir.path / name, operator.methodcaller("write", content))
    for row in results.rows:
        workdir.append(row.of(origins.pop(row.path, None)))
        terminal.end_image(row)
        page.add(row)


def _one_line(error: BaseException) -> str:
    """The message of an error, without the traces and hints that follow it."""
    text = str(error).strip() or type(error).__name__
    return " ".join(text.partition("\n\n")[0].split())


# What follows runs in a worker.


def worker_device(kind: str) -> str:
    """The worker's device in words.

    Raises:
      InputError: Ray gave the worker a GPU, but its JAX cannot use it.
    """
    import jax

    device = startup.device_name()
    wanted = os.environ.get("JAX_PLATFORMS")
    if kind == "GPU" and not wanted and jax.default_backend() == "cpu":
        raise InputError(
            f"{socket.gethostname()}: JAX found no GPU on this node of the Ray cluster, which has "
            f"some; expected pip install 'ssdnet-jax[gpu]' there"
        )
    return device


def _run_batch(
    kind: str,
    images: Sequence[tuple[str, _Source]],
    shared: _Shared,
    options: Mapping[str, Any],
) -> _Results:
    """Scores images on one device, by a run into a folder that then goes."""
    registry.adopt(shared.registered)
    startup.use_compilation_cache()
    worker_device(kind)
    sources = {name: _reader(source) for name, source in images}
    terminal = _Problems()
    with tempfile.TemporaryDirectory(prefix="ssdnet-") as folder:
        workdir = open_workdir(Path(folder), shared.method, root=None)
        local_run(shared.method, sources, workdir, terminal, options=Options(**options))
        found = itertools.chain.from_iterable(
            workdir.path.glob(f"{n}/**/*") for n in RESULT_FOLDERS
        )
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in found if p.is_file()}
        return _Results(read_rows(workdir.path / "results.csv"), files, terminal.texts)


def _reader(source: _Source) -> Reader:
    def read() -> DecodedImage:
        if isinstance(source, Exception):
            raise source
        return source

    return read
