"""Images on their way through a method: prepared, (inpainted,) encoded, fitted, ready to be scored.

Images of one bucket are taken together: they are encoded in one call, fitted in lanes, and handed
back in groups, which are scored in one call.
"""

import collections
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence

import jax

from ssdnet_jax.errors import SSDnetError
from ssdnet_jax.methods.base import (
    Bucket,
    Done,
    Fitted,
    Job,
    Localization,
    Method,
    Prepared,
    Progress,
    Report,
    known_to_be,
)
from ssdnet_jax.methods.ssdnet import check_fit
from ssdnet_jax.programs import make_room_for_programs
from ssdnet_jax.runner.batching import Failed, fit_stream
from ssdnet_jax.runner.devices import load_fits

# Errors that fail one image; the others go on.
IMAGE_ERRORS = (SSDnetError, OSError, MemoryError, jax.errors.JaxRuntimeError)

_MOST_WAITING = 8  # images of other buckets that may wait while one bucket runs


@dataclasses.dataclass(frozen=True)
class Incoming:
    """An image that has been read, or why it could not be."""

    name: str
    prepared: Prepared | Exception
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Failure:
    """An image that has no result, and why."""

    name: str
    error: Exception
    started: float


@dataclasses.dataclass(frozen=True)
class Group:
    """Images of one bucket that are ready to be scored in a batch of `size`."""

    done: Sequence[Done]  # at most `size` images
    size: int  # of the batch, into which the images are filled
    started: Sequence[float]  # by image, when its fits began; by the clock of `time.monotonic`


def localizations(
    method: Method, group: Group, report: Report = lambda progress: None
) -> Iterator[tuple[Done, float, Callable[[], Localization] | Exception]]:
    """Scores a group: of each image when it began, and what is left to do or why it failed.

    See `Method.finish`.
    """
    try:
        results = method.finish(group.done, group.size, report)
    except IMAGE_ERRORS as error:
        if group.size == 1:
            yield group.done[0], group.started[0], error
            return
        for done, started in zip(group.done, group.started, strict=True):
            # One of them may be to blame, or their number.
            yield from localizations(method, Group([done], 1, [started]), report)
    else:
        yield from zip(group.done, group.started, results, strict=True)


def load_programs(
    method: Method,
    bucket: Bucket,
    prepared: Prepared,
    lanes: Callable[[Bucket], tuple[int, int]],
) -> None:
    """Compiles, or loads, the programs of a bucket while its first images are under way.

    Args:
      method: with its weights.
      bucket: of `prepared`.
      prepared: its first image.
      lanes: as for `Stream.results`.
    """
    size, devices = lanes(bucket)

    def of_fits(shape: tuple[int, ...]) -> None:
        if bucket.settings is not None:
            load_fits(
                shape,
                lanes=size,
                devices=devices,
                settings=bucket.settings,
                keys=prepared.key.dtype,
                vgg19=method.vgg19,
            )

    method.load(prepared, size, of_fits)


@dataclasses.dataclass
class _Image:
    prepared: Prepared
    fits: dict[int, Fitted] = dataclasses.field(default_factory=dict)


class Stream:
    """Runs images through a method; see `results`."""

    def __init__(
        self,
        method: Method,
        incoming: Iterator[Incoming],
        *,
        warn: Callable[[str], None] = lambda text: None,
        show: Callable[[Sequence[str]], None] = lambda names: None,
        fail: Callable[[Failure], None] | None = None,
    ):
        """A stream of `incoming` images.

        Args:
          method: with its weights.
          incoming: read when there is room.
          warn: told what images come with.
          show: told which images are under way, whenever that changes.
          fail: told of a failure at once; without it failures are among the results.
        """
        self._method, self._incoming, self._warn, self._show = method, incoming, warn, show
        self._waiting: dict[Bucket, collections.deque[tuple[str, Prepared]]] = (
            collections.defaultdict(collections.deque)
        )
        self._jobs: collections.deque[Job] = collections.deque()  # of the bucket that runs
        self._running: dict[str, _Image] = {}
        self._started: dict[str, float] = {}
        self._ready: list[tuple[Done, float]] = []
        self._failures: list[Failure] = []
        self._on_failure = fail or self._failures.append
        self._on_new_bucket: Callable[[Bucket, Prepared], None] = lambda bucket, prepared: None
        self._size = 1

    def results(
        self,
        *,
        lanes: Callable[[Bucket], tuple[int, int]],
        report: Callable[[Progress], None] = lambda progress: None,
        stop: Callable[[], bool] = lambda: False,
        load: Callable[[Bucket, Prepared], None] = lambda bucket, prepared: None,
    ) -> Iterator[Group | Failure]:
        """Groups of images that are ready to be scored, and images that failed.

        Args:
          lanes: of a bucket, how many fits a device does at once and how many devices do them.
          report: called between blocks of steps.
          stop: asked between blocks; True ends the stream, with what is ready still given.
          load: told of each bucket as soon as its first image is there.
        """
        self._on_new_bucket = load
        while not stop() and (bucket := self._fullest_bucket()) is not None:
            make_room_for_programs()
            self._size, devices = lanes(bucket)
            if bucket.settings is None:  # nothing to fit
                while not stop() and (images := self._next_images(bucket, self._size)):
                    self._begin(images, self._size)
                    yield from self._given(all_of_them=True)
                continue
            for result in fit_stream(
                functools.partial(self._take, bucket),
                lanes=self._size,
                devices=devices,
                vgg19=self._method.vgg19,
                report=report,
                stop=stop,
            ):
                self._put(result)
                yield from self._given()
            yield from self._given(all_of_them=True)
        yield from self._given(all_of_them=True)

    def _given(self, *, all_of_them: bool = False) -> Iterator[Group | Failure]:
        """What can be handed on: failures, full groups, and at a bucket's end the rest."""
        while self._failures:
            yield self._failures.pop(0)
        while len(self._ready) >= self._size or (all_of_them and self._ready):
            now, self._ready = self._ready[: self._size], self._ready[self._size :]
            done, started = zip(*now, strict=True)
            yield Group(done, self._size, started)

    def _fullest_bucket(self) -> Bucket | None:
        """The bucket with most images waiting; None when all images have gone through."""
        while not any(self._waiting.values()):
            if not self._read_next():
                return None
        return max(self._waiting, key=lambda bucket: len(self._waiting[bucket]))

    def _take(self, bucket: Bucket, most: int) -> Sequence[Job]:
        """At most so many jobs of a bucket; none where too many images of other buckets wait."""
        while len(self._jobs) < most:
            seeds = 1 if bucket.plan is None else bucket.plan.seeds
            images = self._next_images(bucket, -(-(most - len(self._jobs)) // seeds))
            if not images:
                break
            for start in range(0, len(images), self._size):
                self._begin(images[start : start + self._size], self._size)
        return [self._jobs.popleft() for _ in range(min(most, len(self._jobs)))]

    def _next_images(self, bucket: Bucket, most: int) -> list[tuple[str, Prepared]]:
        images = self._waiting[bucket]
        while len(images) < most:
            others = sum(map(len, self._waiting.values())) - len(images)
            if others >= _MOST_WAITING or not self._read_next():
                break
        return [images.popleft() for _ in range(min(most, len(images)))]

    def _begin(self, images: Sequence[tuple[str, Prepared]], size: int) -> None:
        """Encodes images of one bucket and queues their jobs; without jobs they are ready.

        Images with missing pixels are inpainted before they are encoded.
        """
        for name, _ in images:
            self._started.setdefault(name, time.monotonic())
        encoded = [prepared for _, prepared in images]
        try:
            if not encoded[0].incomplete:
                encoded = self._method.encode(encoded, size)
        except IMAGE_ERRORS as error:
            if size > 1:  # one of them may be to blame, or their number
                for image in images:
                    self._begin([image], 1)
            else:
                self._fail(images[0][0], error)
            return
        for (name, _), prepared in zip(images, encoded, strict=True):
            if jobs := self._method.jobs(prepared, name):
                self._running[name] = _Image(prepared)
                self._jobs.extend(jobs)
            else:
                self._done(Done(name, prepared))
        self._show(list(self._running) or [name for name, _ in images])

    def _done(self, done: Done) -> None:
        self._ready.append((done, self._started.pop(done.name)))

    def _fail(self, name: str, error: Exception) -> None:
        started = self._started.pop(name, time.monotonic())
        self._on_failure(Failure(name, error, started))

    def _put(self, result: Fitted | Failed) -> None:
        """Takes the result of a job; the image's last one completes it."""
        name, seed = result.name
        image = self._running.get(name)
        if image is None:  # another seed of it has failed
            return
        try:
            if isinstance(result, Failed):
                raise result.error
            check_fit(result)
            if image.prepared.incomplete:
                filled = self._method.fill(image.prepared, result)
                del self._running[name]
                self._queue(name, filled)
                return
        except IMAGE_ERRORS as error:
            del self._running[name]
            self._jobs = collections.deque(j for j in self._jobs if j.name.image != name)
            self._fail(name, error)
            return
        image.fits[seed] = result
        if len(image.fits) == known_to_be(image.prepared.plan).seeds:
            del self._running[name]
            fits = tuple(image.fits[seed] for seed in sorted(image.fits))
            self._done(Done(name, image.prepared, fits))
            self._show(list(self._running))

    def _read_next(self) -> bool:
        """Queues the next image; whether there was one left to read."""
        incoming = next(self._incoming, None)
        if incoming is None:
            return False
        for warning in incoming.warnings:
            self._warn(f"{incoming.name}: {warning}")
        if isinstance(incoming.prepared, Exception):
            self._fail(incoming.name, incoming.prepared)
        else:
            self._queue(incoming.name, incoming.prepared)
        return True

    def _queue(self, name: str, prepared: Prepared) -> None:
        bucket = self._method.bucket(prepared)
        if bucket not in self._waiting:
            self._on_new_bucket(bucket, prepared)
        self._waiting[bucket].append((name, prepared))
