"""Scoring many images into a work folder: read ahead, fitted in lanes, written behind."""

import contextlib
import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
from jaxtyping import PRNGKeyArray

from ssdnet_jax.methods.base import Bucket, Method, Prepared, Progress
from ssdnet_jax.runner.devices import check_memory, devices_that_fit, lanes_that_fit
from ssdnet_jax.runner.page import Page, open_page
from ssdnet_jax.runner.record import Record, Threads, Written
from ssdnet_jax.runner.sources import Origin, Reader, read_with_origin
from ssdnet_jax.runner.stream import IMAGE_ERRORS, Group, Incoming, Stream, load_programs
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.threads import in_advance, read_ahead, side_by_side, write_behind
from ssdnet_jax.runner.verdicts import Verdicts
from ssdnet_jax.runner.workdir import Row, Workdir
from ssdnet_jax.text import chance, counted, duration, one_line

_SHRUNK = 4.0  # how much smaller an image may become without a word
_ENLARGED = 4.0  # how much larger
_MOST_AHEAD = 64  # images read before their turn, or waiting to be written


@dataclasses.dataclass(frozen=True)
class Options:
    """How a run is carried out; options change results only by rounding."""

    lanes: int = 0  # images that a device fits at once; 0: chosen by its memory (`lanes_that_fit`)
    devices: int = 0  # local devices to use; 0: all, of a CPU as many as its memory allows
    save_params: bool = False  # whether fitted parameters are kept (`runner.checkpoints`)
    stop: Callable[[], bool] = lambda: False  # asked between blocks of steps; True ends the run,
    # with finished images kept
    most_lanes: int = 0  # no more lanes than this; 0: than share out all fits over the devices;
    # where the device chooses, than the next power of two
    heatmaps: str = "all"  # of which images the heat map figure is written (`record.HEATMAPS`)


DEFAULT_OPTIONS = Options()


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a run did: images finished, failed, and found finished before it started."""

    finished: int
    failed: int
    finished_before: int
    seconds: float
    stopped: bool = False


def run(
    method: Method,
    sources: Mapping[str, Reader],
    workdir: Workdir,
    terminal: Terminal,
    *,
    options: Options = DEFAULT_OPTIONS,
    page: Page | None = None,
) -> Summary:
    """Scores each image by any method and writes its maps, heat map, mask and row.

    An image that fails gets a row with status "error"; the others go on.

    Args:
      method: with the weights that it needs.
      sources: relative path -> function that reads what the method prepares.
      workdir: images finished there before are left alone.
      terminal: shows progress and problems.
      options: lanes, devices and what else changes results only by rounding.
      page: that is open already and shows the images; None: one of this run.
    """
    started = time.monotonic()
    todo = {name: read for name, read in sources.items() if name not in workdir.finished}
    # Of all images, not of those left: a resumed run then has the same lanes, bit for bit.
    fits = len(sources) * method.config.fit.seeds
    most_devices = max(1, min(options.devices or jax.local_device_count(), fits))
    ahead = min((options.lanes or 2) * most_devices + 2, _MOST_AHEAD)

    def lanes(bucket: Bucket) -> tuple[int, int]:
        return _lanes(bucket, fits, method, options)

    def show(names: Sequence[str]) -> None:
        if names:
            terminal.images(names)
        else:
            terminal.stage("scoring and writing")

    terminal.start_run(len(todo))
    origins: dict[str, Origin | None] = {}  # of images that have been read
    with (
        contextlib.nullcontext(page) if page else open_page(workdir, list(sources)) as shown,
        write_behind(_MOST_AHEAD) as append,
        side_by_side() as work,
        write_behind(ahead) as score,
        in_advance() as before_use,
    ):
        threads = Threads(score, work, append)
        written = Written(options.heatmaps, options.save_params)
        record = Record(method, workdir, terminal, shown, threads, written, origins)

        def stop() -> bool:
            return options.stop() or score.failed or append.failed

        def report(progress: Progress) -> None:
            terminal.progress(progress)
            if progress.step:
                record.warm_up()

        shrunk: dict[str, float] = {}  # by how much, of images that become much smaller
        enlarged: dict[str, float] = {}  # likewise, that become much larger
        plain: list[str] = []  # images whose detail is not compared

        def reading(name: str, read: Reader) -> Incoming:
            found = _read(name, read, method, workdir, origins)
            if (factor := _shrinking(found)) > _SHRUNK:
                shrunk[name] = factor
            elif 0 < factor < 1 / _ENLARGED:
                enlarged[name] = 1 / factor
            if not isinstance(found.prepared, Exception) and found.prepared.lacks_detail:
                plain.append(name)
            return found

        def load(bucket: Bucket, prepared: Prepared) -> None:
            before_use(functools.partial(load_programs, method, bucket, prepared, lanes))

        tasks = (functools.partial(reading, *item) for item in todo.items())
        with read_ahead(tasks, ahead, stop=stop) as incoming:
            stream = Stream(method, incoming, warn=terminal.problem, show=show, fail=record.fail)
            for result in stream.results(lanes=lanes, report=report, stop=stop, load=load):
                if isinstance(result, Group):
                    record.finish(result)
    if shrunk:
        terminal.remark(_shrunk_line(shrunk, len(todo), method.config.image_size))
    if enlarged:
        terminal.remark(_enlarged_line(enlarged, len(todo), method.config.image_size))
    if plain:
        terminal.remark(_plain_line(plain, len(todo), method.config.tiling.above))
    workdir.order(sources)
    return Summary(
        finished=record.finished,
        failed=record.failed,
        finished_before=len(sources) - len(todo),
        seconds=time.monotonic() - started,
        stopped=options.stop(),
    )


def _lanes(bucket: Bucket, fits: int, method: Method, options: Options) -> tuple[int, int]:
    """Lanes of a device, and devices, for the images of a bucket."""
    if bucket.settings is None:
        return 1, 1
    devices = options.devices or devices_that_fit(bucket.shape, bucket.settings)
    devices = min(devices, fits)
    most = options.most_lanes or -(-fits // devices)
    if options.lanes:
        return min(options.lanes, most), devices
    return lanes_that_fit(bucket.shape, bucket.settings, most), devices


def summary_line(summary: Summary, workdir: Path, verdicts: Verdicts) -> str:
    """The last line that a command prints."""
    parts = [f"{summary.finished} finished"]
    if summary.finished_before:
        parts.append(f"{summary.finished_before} finished before")
    if summary.failed:
        parts.append(f"{summary.failed} failed")
    if summary.stopped:
        parts.append("stopped before the end")
    parts = [f"{', '.join(parts)} in {duration(summary.seconds)}"]
    if verdicts.all:
        parts.append(_counts(verdicts))
    return "; ".join([*parts, f"see {workdir / 'index.html'}"])


def _counts(verdicts: Verdicts) -> str:
    """How many images are anomalous, by what, and which are the worst; of one what it is."""
    if len(verdicts.all) == 1:
        (only,) = verdicts.all
        p_value = f" ({chance(only.p_value)})" if only.verdict != "unjudged" else ""
        return f"{one_line(only.path)} is {only.verdict}{p_value}"
    bad, unsure = verdicts.anomalous, verdicts.unsure
    among = ", compared with one another" if verdicts.by == "folder" else ""
    text = f"{len(bad)} of {len(verdicts.all)} anomalous{among}"
    if unsure:
        text += f", {len(unsure)} unsure"
    if bad:
        text += f", worst {', '.join(one_line(verdict.path) for verdict in bad[:3])}"
    return text


def found_lines(rows: Sequence[Row]) -> list[str]:
    """What was found of images and changes what is judged of them: a line for each kind."""
    rows = [row for row in rows if row.status == "ok"]
    lines = []
    if ground := [row.path for row in rows if row.ground is not None]:
        lines.append(
            f"{_some_of(ground, len(rows))} with flat ground around a part, which is not judged "
            f"(results.csv says how much; --ground=keep judges it)"
        )
    if narrow := [row.path for row in rows if row.range]:
        lines.append(
            f"{_some_of(narrow, len(rows))} of a small range, which was stretched (results.csv "
            f"says which; --range=full does not, --range=LOW,HIGH does the same to all)"
        )
    return lines


def _shrinking(incoming: Incoming) -> float:
    """How many pixels of an image's file are one of what is analysed, along an axis."""
    prepared = incoming.prepared
    if isinstance(prepared, Exception) or prepared.fits is not None:
        return 0.0
    layout = prepared.layout
    shape = prepared.missing.shape if layout is None else layout.window_shape
    return min(shape) / min(prepared.fitted.shape[:2])


def _plain_line(plain: Sequence[str], images: int, above: int) -> str:
    return (
        f"{_some_of(plain, images)} analysed at more than {above // 4} pixels, and so without what "
        f"the file shows at twice that size (config.score.detail); a smaller --image_size compares "
        f"it"
    )


def _shrunk_line(shrunk: Mapping[str, float], images: int, image_size: int) -> str:
    most = max(shrunk.values())
    return (
        f"{_some_of([*shrunk], images)} analysed at up to {most:.3g} "
        f"times smaller: defects of less than about {2 * most:.0f} pixels cannot be seen; "
        f"a larger --image_size than {image_size} shows them, and takes longer"
    )


def _enlarged_line(enlarged: Mapping[str, float], images: int, image_size: int) -> str:
    return (
        f"{_some_of([*enlarged], images)} analysed at up to {max(enlarged.values()):.3g} times the "
        f"size: so few pixels along a side tell little of a texture; an --image_size below "
        f"{image_size} enlarges less, and is faster"
    )


def _some_of(names: Sequence[str], images: int) -> str:
    """How many of the images, and which if it is one."""
    name = f" ({names[0]})" if len(names) == 1 else ""
    return f"{len(names)} of {counted(images, 'image')}{name}"


def image_key(seed: int, relative: str) -> PRNGKeyArray:
    """The key of an image depends on its path and the seed alone, not on its neighbours."""
    digest = hashlib.sha256(relative.encode("utf-8", "surrogateescape")).digest()
    return jax.random.fold_in(jax.random.key(seed), int.from_bytes(digest[:4], "big"))


def _read(
    name: str,
    read: Reader,
    method: Method,
    workdir: Workdir,
    origins: dict[str, Origin | None],
) -> Incoming:
    """Reads and prepares an image, whose contents are noted; an error takes its place."""
    try:
        workdir.check_name(name)
        source, origins[name] = read_with_origin(read)
        prepared = method.prepare(source, image_key(method.config.seed, name))
        bucket = method.bucket(prepared)
        if bucket.settings is not None:
            check_memory(bucket.shape, bucket.settings)
    except IMAGE_ERRORS as error:
        return Incoming(name, error)
    return Incoming(name, prepared, tuple(getattr(source, "warnings", ())))
