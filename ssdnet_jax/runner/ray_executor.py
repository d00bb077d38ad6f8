"""The same run over a Ray cluster: each batch of images is a small run of its own, on one device.

A worker is a process that has one device for as long as the cluster is joined, and with it the
programs that it has compiled. It scores a few images into a folder of its own, by the functions of
a local run, and returns the files and rows that lie there. The driver, the process that a user
started, reads the images, gives them to workers and puts what returns into the work folder: nodes
need no common file system. Placing the workers is left to Ray. What a lost worker was given, others
do again, and another worker takes its place when there is room for one.
"""

import contextlib
import dataclasses
import io
import itertools
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ssdnet_jax.core import registry
from ssdnet_jax.data.files import write_bytes
from ssdnet_jax.data.images import DecodedImage
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.methods.base import Method
from ssdnet_jax.programs import forget_programs
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

# A batch that has lost so many workers is what kills them; its images fail and the others go on.
_MOST_LOSSES = 4
_MOST_FAILED_STARTS = 10  # of workers, one after another: then none can be had
_GIVEN = 2  # batches that a worker is given at once, so that no device waits for the driver
_GPU_LANES = 64  # images of one filling where the workers choose the lanes (`lanes_that_fit`)
# The last images of a batch leave lanes empty, so that a batch is several fillings of the lanes.
_GPU_FILLINGS = 4
_BATCH_BYTES = 2**29  # of decoded images: batches that wait lie in the driver's memory
_POLL_SECONDS = 0.5  # how late a request to stop may be seen

# What a worker is given for an image: its pixels, or why it cannot be read.
_Source = DecodedImage | Exception


class _Shared(NamedTuple):
    """What all batches of a run take, sent to a node once: method, and what is registered."""

    method: Method
    registered: Mapping[str, Mapping[str, Any]]
    run: int  # of those of the same workers


@dataclasses.dataclass(frozen=True)
class _Results:
    """What comes of a batch: rows, problems, and files by path relative to the work folder."""

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
        workers = _workers()
        stack.callback(workers.end)
        yield f"{workers.first_device()}, {workers.most} at once by Ray"


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

    A worker has one GPU, or where the cluster has none, one CPU. Results are those of a local run
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
    workers = _workers()
    seeds = method.config.fit.seeds
    fits = len(sources) * seeds  # of all images, as in `runner.run`
    most_lanes = fits if options.lanes else -(-fits // workers.most)
    images = batch_size(workers.kind, options.lanes, most_lanes, seeds, len(todo), workers.most)
    run_options = {
        "lanes": options.lanes,
        "devices": 1,
        "most_lanes": most_lanes,
        "save_params": options.save_params,
        "heatmaps": options.heatmaps,
    }
    workers.wanted = min(workers.most, -(-len(todo) // images))
    workers.runs += 1
    shared = ray.put(_Shared(method, registry.foreign_entries(), workers.runs))
    terminal.start_run(len(todo))
    finished = failed = 0
    origins: dict[str, Origin | None] = {}
    reading = (_reading(name, sources[name], origins) for name in todo)
    with (
        contextlib.nullcontext(page) if page else open_page(workdir, list(sources)) as shown,
        read_ahead(reading, images + 2, stop=options.stop) as read,
    ):
        batches = cut_batches(zip(todo, read, strict=False), images, _BATCH_BYTES)
        try:
            while not options.stop():
                workers.give(batches, shared, run_options)
                if not workers.given:
                    break
                terminal.stage(f"{workers.images} images with Ray")
                for results in workers.results(_POLL_SECONDS):
                    _write(results, workdir, terminal, shown, origins)
                    ok = sum(row.status == "ok" for row in results.rows)
                    finished, failed = finished + ok, failed + len(results.rows) - ok
        finally:
            workers.give_up()
    workdir.order(sources)
    seconds = time.monotonic() - started
    return Summary(finished, failed, len(sources) - len(todo), seconds, stopped=options.stop())


@dataclasses.dataclass
class _Batch:
    """Images that are done together."""

    names: Sequence[str]
    images: "ray.ObjectRef"  # what `_Worker.score` is given
    losses: int = 0  # workers that were lost over it

    @property
    def failed(self) -> _Results:
        """Error rows: each of its workers died."""
        reason = (
            f"its worker was lost {self.losses} times; expected nodes with enough memory, or "
            f"fewer --lanes"
        )
        rows = [Row(path=name, status="error", error=reason) for name in self.names]
        return _Results(rows, {}, [f"{name}: {reason}" for name in self.names])


class _Workers:
    """The workers of a cluster: started, given batches, and replaced where they are lost."""

    def __init__(self) -> None:
        import ray

        self.kind, self.most = _slots()
        self.runs = 0
        self.wanted = 1  # of `most`, as many as have something to do
        device = {"num_gpus": 1, "num_cpus": 0} if self.kind == "GPU" else {"num_cpus": 1}
        self._actor = ray.remote(**device)(_Worker)
        self._starting: dict[ray.ObjectRef, Any] = {}  # until they know their device
        self._given: dict[Any, dict[ray.ObjectRef, _Batch]] = {}  # those that work, in the order in
        # which they were given them, which is that in which they do them
        self._waiting: list[_Batch] = []  # for a worker: those that were lost, and one more
        self._failed_starts = 0
        self._device = ""

    @property
    def given(self) -> list[_Batch]:
        """Batches that are under way, or wait for a worker."""
        return [*self._waiting, *(b for those in self._given.values() for b in those.values())]

    @property
    def images(self) -> int:
        """How many images are in them."""
        return sum(len(batch.names) for batch in self.given)

    def first_device(self) -> str:
        """The device of the first worker that starts, in words."""
        while not self._device:
            self._start()
            list(self.results(_POLL_SECONDS))
        return self._device

    def give(
        self,
        batches: Iterator[Sequence[tuple[str, _Source]]],
        shared: "ray.ObjectRef",
        options: Mapping[str, Any],
    ) -> None:
        """Gives each worker what it has not got yet of its batches, those to be repeated first."""
        self._start()
        for place in range(_GIVEN):
            for worker, those in self._given.items():
                if len(those) <= place and self._has_another(batches):
                    batch = self._waiting.pop(0)
                    those[worker.score.remote(batch.images, shared, options)] = batch
        self._has_another(batches)  # also where no worker has started

    def results(self, seconds: float) -> Iterator[_Results]:
        """Waits so long at most for what comes next, and gives what has come."""
        import ray

        of_worker = {ref: worker for worker, those in self._given.items() for ref in those}
        refs = [*self._starting, *of_worker]
        if not refs:
            time.sleep(seconds)
        ready = ray.wait(refs, timeout=seconds)[0] if refs else []
        for ref in ready:
            if ref in self._starting:
                self._has_started(ref)
            elif (worker := of_worker[ref]) in self._given:
                try:
                    results = _get(ref)
                except ray.exceptions.RayError:
                    yield from self._lost(worker)
                else:
                    del self._given[worker][ref]
                    yield results

    def give_up(self) -> None:
        """Ends those that have something to do; the others stay for the next run."""
        import ray

        self._waiting.clear()
        for worker in [worker for worker, those in self._given.items() if those]:
            del self._given[worker]
            ray.kill(worker)

    def end(self) -> None:
        """Ends all of them."""
        import ray

        for worker in [*self._starting.values(), *self._given]:
            ray.kill(worker)
        self._starting.clear()
        self._given.clear()

    def _start(self) -> None:
        """Has Ray start those that are wanted, each when there is room for it."""
        for _ in range(self.wanted - len(self._starting) - len(self._given)):
            worker = self._actor.remote()
            self._starting[worker.device.remote(self.kind)] = worker

    def _has_started(self, ref: "ray.ObjectRef") -> None:
        import ray

        worker = self._starting.pop(ref)
        try:
            self._device = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise error.cause from error
            raise _cannot_run(error.cause) from error
        except ray.exceptions.RayError as error:
            self._failed_starts += 1
            if self._failed_starts > _MOST_FAILED_STARTS:
                raise _cannot_run(error) from error
            ray.kill(worker)
        else:
            self._failed_starts = 0
            self._given[worker] = {}

    def _has_another(self, batches: Iterator[Sequence[tuple[str, _Source]]]) -> bool:
        """Whether a batch waits; the next one does then, if there is one."""
        import ray

        if not self._waiting and (images := next(batches, None)) is not None:
            self._waiting.append(_Batch([name for name, _ in images], ray.put(images)))
        return bool(self._waiting)

    def _lost(self, worker: Any) -> Iterator[_Results]:
        """Takes back what a worker had been given; of a batch that has lost too many, its failure.

        The first is to blame, if any: the others were waiting.
        """
        import ray

        ray.kill(worker)  # where it cannot be reached, but lives
        first, *again = self._given.pop(worker).values()
        first.losses += 1
        if first.losses < _MOST_LOSSES:
            again.insert(0, first)
        else:
            yield first.failed
        self._waiting[:0] = again


_WORKERS: dict[tuple[str, str], _Workers] = {}  # of the cluster that was joined last


def _workers() -> _Workers:
    """The workers of the cluster that has been joined, which stay from one run to the next."""
    import ray

    context = ray.get_runtime_context()
    joined = (context.gcs_address, context.get_job_id())
    if joined not in _WORKERS:
        _WORKERS.clear()  # they ended with the Ray that they belonged to
        _WORKERS[joined] = _Workers()
    return _WORKERS[joined]


def _cannot_run(error: BaseException) -> InputError:
    return InputError(
        f"a Ray worker cannot run ssdnet ({_one_line(error)}); expected ssdnet-jax on every node"
    )


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


def batch_size(kind: str, lanes: int, most_lanes: int, seeds: int, images: int, slots: int) -> int:
    """Images of a batch: enough to fill its lanes, on a GPU several times if there are as many."""
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


def _get(ref: "ray.ObjectRef") -> _Results:
    """What came of a batch; a `RayError` if its worker was lost."""
    import ray

    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:  # a fault of the program, as in a local run
        raise error.cause from error


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
        write_bytes(workdir.path / name, content)
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


class _Worker:
    """What a process of the cluster does as long as it has its device."""

    def __init__(self) -> None:
        self._run: int | None = None
        self._settings: Any = None

    def device(self, kind: str) -> str:
        """Sets JAX up and returns `worker_device`."""
        startup.compute_in_float32()
        startup.use_compilation_cache()
        return worker_device(kind)

    def score(
        self,
        images: Sequence[tuple[str, _Source]],
        shared: _Shared,
        options: Mapping[str, Any],
    ) -> _Results:
        """Scores images on one device, by a run into a folder that then goes."""
        if shared.run != self._run:
            settings = (shared.method.name, shared.method.settings)
            # What is registered may be another function of the same name.
            if self._run is not None and (settings != self._settings or shared.registered):
                forget_programs()
            self._run, self._settings = shared.run, settings
            registry.adopt(shared.registered)
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
