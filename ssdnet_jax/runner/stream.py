"""Images on their way through the stages: read, (inpainted,) fitted, handed to the record."""

import collections
import dataclasses
import time
from collections.abc import Iterator
from typing import NamedTuple

from jaxtyping import PRNGKeyArray

from ssdnet_jax import stages
from ssdnet_jax.config import Config
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.errors import SSDnetError
from ssdnet_jax.runner.batching import Bucket, Failed, Fitted, Job, Progress
from ssdnet_jax.runner.record import Record
from ssdnet_jax.runner.terminal import Terminal

_MOST_WAITING = 8  # images of other buckets that may wait while one bucket runs


@dataclasses.dataclass(frozen=True)
class Incoming:
    """An image that has been read, or why it could not be."""

    relative: str
    prepared: stages.Prepared | None
    key: PRNGKeyArray | None
    warnings: tuple[str, ...]
    error: Exception | None


class _Name(NamedTuple):
    """Which fit of which image a job is."""

    relative: str
    seed: int


@dataclasses.dataclass
class _Image:
    prepared: stages.Prepared
    key: PRNGKeyArray
    started: float | None = None
    fits: dict[int, Fitted] = dataclasses.field(default_factory=dict)


class Stream:
    """Gives jobs to the lanes and takes their results; see `runner.run`."""

    def __init__(
        self,
        incoming: Iterator[Incoming],
        config: Config,
        record: Record,
        terminal: Terminal,
        vgg19: VGG19Weights | None,
    ):
        self._incoming, self._config, self._vgg19 = incoming, config, vgg19
        self._record, self._terminal = record, terminal
        self._images: dict[str, _Image] = {}
        self._waiting: dict[Bucket, collections.deque[Job]] = collections.defaultdict(
            collections.deque
        )

    def fullest_bucket(self) -> Bucket | None:
        """The bucket with most jobs waiting; None when all images have gone through."""
        while not any(self._waiting.values()):
            if not self._load():
                return None
        return max(self._waiting, key=lambda bucket: len(self._waiting[bucket]))

    def take(self, bucket: Bucket) -> Job | None:
        """The next job of a bucket; None if there is none before too many of others wait."""
        jobs = self._waiting[bucket]
        while not jobs and sum(map(len, self._waiting.values())) < _MOST_WAITING:
            if not self._load():
                return None
        if not jobs:
            return None
        job = jobs.popleft()
        image = self._images[job.name.relative]
        image.started = image.started or time.monotonic()
        self._show()
        return job

    def put(self, result: Fitted | Failed) -> None:
        """Takes the result of a job; the image's last one completes it."""
        relative, seed = result.name
        image = self._images.get(relative)
        if image is None:  # another seed of it has failed
            return
        if isinstance(result, Failed):
            self._fail(relative, result.error)
            return
        try:
            stages.check_fit(result)
            if image.prepared.incomplete:
                image.prepared = stages.fill(image.prepared, result)
                self._queue_fits(relative, image)
                return
        except SSDnetError as error:
            self._fail(relative, error)
            return
        image.fits[seed] = result
        if len(image.fits) == self._config.fit.seeds:
            del self._images[relative]
            fits = [image.fits[seed] for seed in sorted(image.fits)]
            self._record.finish(relative, image.prepared, fits, image.started)
            self._show()

    def report(self, progress: Progress) -> None:
        """Shows where the lanes stand."""
        self._terminal.progress(progress)
        if progress.step:
            self._record.warm_up()

    def _load(self) -> bool:
        """Queues the next image; whether there was one left to read."""
        incoming = next(self._incoming, None)
        if incoming is None:
            return False
        for warning in incoming.warnings:
            self._terminal.problem(f"{incoming.relative}: {warning}")
        if incoming.error is not None:
            self._record.fail(incoming.relative, incoming.error, time.monotonic())
            return True
        image = _Image(incoming.prepared, incoming.key)
        self._images[incoming.relative] = image
        name = _Name(incoming.relative, 0)
        job = stages.inpaint_job(image.prepared, self._config, image.key, name)
        if job is None:
            self._queue_fits(incoming.relative, image)
        else:
            self._waiting[job.bucket].append(job)
        return True

    def _queue_fits(self, relative: str, image: _Image) -> None:
        names = [_Name(relative, seed) for seed in range(self._config.fit.seeds)]
        for job in stages.fit_jobs(image.prepared, self._config, image.key, names, self._vgg19):
            self._waiting[job.bucket].append(job)

    def _fail(self, relative: str, error: Exception) -> None:
        image = self._images.pop(relative)
        for jobs in self._waiting.values():
            rest = [job for job in jobs if job.name.relative != relative]
            jobs.clear()
            jobs.extend(rest)
        self._record.fail(relative, error, image.started or time.monotonic())

    def _show(self) -> None:
        begun = [name for name, image in self._images.items() if image.started]
        if begun:
            self._terminal.images(begun)
        else:
            self._terminal.stage("scoring and writing")
