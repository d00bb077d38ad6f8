"""The `ssdnet` command: flags in, work folder out."""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ssdnet_jax.cli.commands import Command, Configured, exit_status
from ssdnet_jax.cli.flag_values import one_of
from ssdnet_jax.cli.flags import (
    EXECUTION_FLAGS,
    check_method,
    execution_values,
    read_flags,
    shared_help,
)
from ssdnet_jax.config_files import load_config, with_overrides
from ssdnet_jax.data.datasets import missing_masks
from ssdnet_jax.data.regions import ignored_regions, is_polygon_file, region_masks
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.methods.base import Method
from ssdnet_jax.methods.registry import DEFAULT_METHOD, has_configuration, make_method
from ssdnet_jax.runner import example, startup
from ssdnet_jax.runner.calibrate import calibrated, known_line
from ssdnet_jax.runner.changes import below, without_changed
from ssdnet_jax.runner.decisions import write_defects
from ssdnet_jax.runner.executors import Execution, Executor, executing
from ssdnet_jax.runner.lock import only_run_in
from ssdnet_jax.runner.page import open_page, write_page
from ssdnet_jax.runner.run import Summary, found_lines, summary_line
from ssdnet_jax.runner.sources import Reader, file_sha256, file_sources
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.verdicts import JUDGED_BY, Verdicts, write_verdicts
from ssdnet_jax.runner.watch import watch
from ssdnet_jax.runner.workdir import Workdir, open_workdir, read_rows
from ssdnet_jax.text import counted

_USAGE = """\
ssdnet: where is this image not like itself?

Fits a small network to each image alone, without training data, and marks what the network
cannot reproduce (SSDnet, arXiv 2509.18354).

  ssdnet --workdir=out                             an embedded example with a planted defect
  ssdnet --input=image.png --workdir=out           one image
  ssdnet --input=folder --workdir=out              all images below a folder
  ssdnet --input='parts/**/*.tif' --workdir=out    a glob (quoted)
  ssdnet --input=cloth --workdir=out --config=fabric --config.fit.max_steps=40
  ssdnet --input=folder --workdir=out --watch      what comes into a folder, until Ctrl-C

Flags:
  --input=PATH            image, folder or glob; without it the embedded example is used
  --missing=PATH          mask of pixels that are not known (not 0 where missing), for all images;
                          or a folder of masks with the images' names
  --ignore=PATH           what is not to be judged: a mask (white is ignored) for all images, a
                          folder of masks with their names, or polygons as GeoJSON or COCO
  --workdir=DIR           where results go (needed); finished images there are not fitted again
{config}
  --image_size=PIXELS     shorter side at which an image is analysed (256); 0: its own size
  --ground=auto|keep      flat ground around a part is not judged (auto), or like the rest (keep)
  --range=auto|full|LOW,HIGH  what of full scale, 0 to 1, is stretched before an image is analysed:
                          what it uses if that is little (auto), nothing, or the same for all
{decision}
  --calibration=FILE      what known good images score, written by `ssdnet-calibrate`: with it the
                          rate of false alarms is guaranteed
  --verdict=BY            image: each by itself; folder: among the others, most of which are good;
                          by default folder from 20 images and without a calibration
  --fail_on_anomaly       exit with status 3 if an image is anomalous
  --vgg19_weights=PATH    .npz, .safetensors or .pth of VGG19, for configurations that need it;
                          without it: $SSDNET_VGG19_WEIGHTS, the cache, or a download of 1 MB
{clip_weights}
  --method=NAME           {methods};
                          a baseline may have options, as in fca:border=corrected
{execution}
  --save_params           keep the fitted networks too
  --keep_gone             keep the verdicts of images whose files have gone
  --watch                 score new images of a folder as they come, until Ctrl-C or SIGTERM
  --help, --help_config   this text; the configuration's fields with their values
  --version               the versions of this program and of what it computes with

Results in DIR:
  index.html              all images in a browser, worst first, also while the run goes on
  maps/PATH.tiff          raw anomaly score, float32, in the image's size
  heatmaps/PATH.png       image, heat map, reconstruction and mask side by side
  masks/PATH.png          255 where the image is anomalous; nothing where it is good
  uncertainty/PATH.tiff   spread of the score over seeds, with --config.fit.seeds=N
  fits/PATH.npz           reconstructions, from which `ssdnet-rescore` scores again
  params/PATH/            fitted networks, with --save_params
  results.csv, run.json   a line an image, with the hash of its file; configuration, versions,
                          device, seed, command, hashes of the weights
  verdicts.csv            which images are anomalous, worst first
  defects.csv             where, how large, how sure; also defects.coco.json, defects.geojson
  decisions/PATH.json     the same, a file an image

Exit status: 0 all images done, 1 some failed, 2 nothing could be started (flags, configuration,
input or work folder), 3 all done and some are anomalous (only with --fail_on_anomaly),
130 interrupted, 143 terminated; of --watch 0 at its end. The same command again goes on, and scores
images anew whose files have changed.
"""


@dataclasses.dataclass(frozen=True)
class Arguments(Execution, Configured):
    """What the command line says; None where a flag was not given."""

    input: str | None  # image, folder or glob
    missing: str | None  # mask of missing pixels, or a folder of masks
    ignore: str | None  # mask of what is not judged, a folder of masks, or polygons
    workdir: str | None  # where results go
    vgg19_weights: str | None  # file of VGG19
    clip_weights: str | None  # file of CLIP
    method: str  # one of `METHODS`, with options as `methods.registry` has them
    save_params: bool  # whether fitted networks are kept
    calibration: str | None  # file of what known good images score
    verdict: str | None  # one of `JUDGED_BY`; None: chosen by how many images there are
    fail_on_anomaly: bool  # whether the exit status says that an image is anomalous
    keep_gone: bool  # whether images whose files have gone keep their verdicts
    watch: bool  # whether to wait for more images until told to end

    @property
    def all_methods(self) -> tuple[str, ...]:
        """The one that the command runs."""
        return (self.method,)


def _run(parsed: Arguments, terminal: Terminal, *, command: str) -> int:
    if not parsed.workdir:
        raise ConfigError("--workdir: found none; expected a folder for the results, see --help")
    path = Path(parsed.workdir)
    if parsed.input is None:
        for flag in ("missing", "ignore", "watch"):
            if getattr(parsed, flag):
                raise ConfigError(f"--{flag}: found without --input; expected both")
        terminal.note("no --input: running on the embedded example")
    root, sources = _sources(parsed, terminal.problem)
    # A watch is ended by what interrupts other runs: it has no end of its own.
    signals = (signal.SIGTERM, signal.SIGINT) if parsed.watch else (signal.SIGTERM,)
    with contextlib.ExitStack() as stack:
        executor = stack.enter_context(
            executing(parsed, save_params=parsed.save_params, signals=signals)
        )
        method = startup.with_weights(
            make_method(parsed.method, parsed.config),
            vgg19_path=parsed.vgg19_weights,
            clip_path=parsed.clip_weights,
            report=terminal.problem,
        )
        if parsed.calibration:
            method = calibrated(method, Path(parsed.calibration))
        note = {"command": command, **executor.note, "seed": parsed.config.seed}
        stack.enter_context(only_run_in(path, terminal.problem))
        places = {
            name: Path(given) if given else None
            for name, given in {"missing": parsed.missing, "ignored": parsed.ignore}.items()
        }
        workdir = open_workdir(path, method, root=root, **places, run=note)
        terminal.note(f"{counted(len(sources), 'image')} on {executor.device}")
        workdir = without_changed(
            workdir,
            sources,
            terminal,
            locate=below(root) if root else None,
            keep_gone=parsed.keep_gone,
            stop=executor.options.stop,
        )
        if parsed.watch:
            return _watch(parsed, method, workdir, terminal, executor)
        summary = executor.run(method, sources, workdir, terminal, options=executor.options)
        verdicts = _write_tables(parsed, workdir)
        write_page(workdir, verdicts.all, total=len(sources))
    if root is None and summary.finished + summary.finished_before:
        terminal.summary(example.verdict(workdir))
    for line in found_lines(read_rows(path / "results.csv")):
        terminal.problem(line)
    if parsed.calibration and (known := known_line(workdir, Path(parsed.calibration))):
        terminal.problem(known)
    terminal.summary(summary_line(summary, path, verdicts))
    bad = parsed.fail_on_anomaly and bool(verdicts.anomalous)
    return exit_status(summary, anomalous=bad)


def _sources(
    parsed: Arguments, report: Callable[[str], None] = lambda text: None
) -> tuple[Path | None, Mapping[str, Reader]]:
    """The folder that images are relative to, and how each is read."""
    if parsed.input is None:
        return None, example.sources()
    missing = Path(parsed.missing) if parsed.missing else None
    ignored = Path(parsed.ignore) if parsed.ignore else None
    try:
        root, relatives = startup.find_inputs(
            parsed.input, Path(parsed.workdir or ""), missing, ignored, report=report
        )
    except InputError:
        if not (parsed.watch and Path(parsed.input).is_dir()):
            raise
        return Path(parsed.input), {}  # they are still to come
    masks = missing_masks(missing, relatives) if missing else {}
    regions = ignored_regions(ignored, relatives) if ignored else {}
    files = region_masks(ignored, relatives) if ignored else {}
    polygons = file_sha256(ignored) if ignored and is_polygon_file(ignored) else ""
    return root, file_sources(root, relatives, masks, regions, files, polygons_sha256=polygons)


def _watch(
    parsed: Arguments, method: Method, workdir: Workdir, terminal: Terminal, executor: Executor
) -> int:
    """Scores images as they come until the command is told to end."""
    total = Summary(0, 0, len(workdir.finished), 0.0)
    began, stop = time.monotonic(), executor.options.stop
    # The same number of fits side by side however many images come: one program serves them all.
    options = dataclasses.replace(
        executor.options, lanes=parsed.lanes or 1, devices=parsed.devices or 1
    )
    with open_page(workdir, []) as page:

        def score(sources: Mapping[str, Reader]) -> None:
            nonlocal workdir, total
            workdir = without_changed(workdir, sources, terminal, stop=stop)
            done = executor.run(method, sources, workdir, terminal, options=options, page=page)
            workdir = dataclasses.replace(workdir, finished=workdir.finished_rows())
            total = Summary(total.finished + done.finished, total.failed + done.failed, 0, 0.0)

        def finish() -> None:
            page.decide(_write_tables(parsed, workdir).all)
            page.write(running=True)

        watch(lambda: _sources(parsed)[1], score, finish, stop=stop)
    verdicts = _write_tables(parsed, workdir)
    write_page(workdir, verdicts.all, total=len(verdicts.all))
    total = dataclasses.replace(total, seconds=time.monotonic() - began)
    terminal.summary(summary_line(total, workdir.path, verdicts))
    return 0


def _write_tables(parsed: Arguments, workdir: Workdir) -> Verdicts:
    """What is said of all images of a work folder together."""
    verdicts = write_verdicts(
        workdir, parsed.config.decision, by=parsed.verdict, calibrated=bool(parsed.calibration)
    )
    write_defects(workdir)
    return verdicts


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses the command line, `--flag=value` or `--flag value`; raises ConfigError."""
    own = {
        **dict.fromkeys(("input", "missing", "ignore", "workdir", "vgg19_weights", "clip_weights")),
        **dict.fromkeys(("calibration", "verdict")),
        "fail_on_anomaly": False,
        "method": DEFAULT_METHOD,
        **EXECUTION_FLAGS,
        **dict.fromkeys(("save_params", "keep_gone", "watch", "help_config"), False),
    }
    name, overrides, given = read_flags(arguments, own)
    config = with_overrides(load_config(name), overrides)
    check_method("--method", given["method"], own_configuration=False)
    if given["save_params"] and not has_configuration(given["method"]):
        raise ConfigError(
            f"--save_params: found with --method={given['method']}, which fits no network; "
            f"expected it with --method={DEFAULT_METHOD}"
        )
    if given["verdict"] is not None:
        one_of("--verdict", given["verdict"], JUDGED_BY)
    return Arguments(config=config, **{**given, **execution_values(given)})


def help_text() -> str:
    """What `--help` prints."""
    return _USAGE.format(**shared_help())


COMMAND = Command("ssdnet", "finished images", help_text, parse, _run)
main, console = COMMAND.main, COMMAND.console
