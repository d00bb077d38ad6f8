"""The `ssdnet` command: flags in, work folder out."""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ssdnet_jax.cli.commands import Command, Configured, exit_status
from ssdnet_jax.cli.flags import (
    EXECUTION_FLAGS,
    check_method,
    execution_values,
    read_flags,
    shared_help,
)
from ssdnet_jax.config_files import load_config, with_overrides
from ssdnet_jax.data.datasets import missing_masks
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.methods.base import Method
from ssdnet_jax.methods.registry import DEFAULT_METHOD, make_method
from ssdnet_jax.runner import example, startup
from ssdnet_jax.runner.changes import below, without_changed
from ssdnet_jax.runner.executors import Execution, Executor, executing
from ssdnet_jax.runner.lock import only_run_in
from ssdnet_jax.runner.run import Summary, summary_line
from ssdnet_jax.runner.sources import Reader, file_sources
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.verdicts import Verdict, write_verdicts
from ssdnet_jax.runner.watch import watch
from ssdnet_jax.runner.workdir import Workdir, open_workdir

_USAGE = """\
ssdnet: where is this picture not like itself?

Fits a small network to each picture alone, without training data, and marks what the network
cannot reproduce (SSDnet, arXiv 2509.18354).

  ssdnet --workdir=out                             an embedded example with a planted defect
  ssdnet --input=picture.png --workdir=out         one picture
  ssdnet --input=folder --workdir=out              all pictures below a folder
  ssdnet --input='parts/**/*.tif' --workdir=out    a glob (quoted)
  ssdnet --input=cloth --workdir=out --config=fabric --config.fit.max_steps=40
  ssdnet --input=folder --workdir=out --watch      what comes into a folder, until Ctrl-C

Flags:
  --input=PATH            picture, folder or glob; without it the embedded example is used
  --missing=PATH          mask of pixels that are not known (not 0 where missing), for all pictures;
                          or a folder of masks with the pictures' names
  --workdir=DIR           where results go (needed); finished pictures there are not fitted again
{config}
  --image_size=PIXELS     side of the square that is fitted (256); 0: the picture's own size
  --vgg19_weights=PATH    .npz, .safetensors or .pth of VGG19, for configurations that need it;
                          without it: $SSDNET_VGG19_WEIGHTS, the cache, or a download of 1 MB
{clip_weights}
  --method=NAME           {methods};
                          a baseline may have options, as in fca:border=corrected
{execution}
  --save_params           keep the fitted networks too
  --keep_gone             keep the verdicts of pictures whose files have gone
  --watch                 score new pictures of a folder as they come, until Ctrl-C or SIGTERM
  --help, --help_config   this text; the configuration's fields with their values

Results in DIR:
  maps/PATH.tiff          raw anomaly score, float32, in the picture's size
  heatmaps/PATH.png       picture, heat map, reconstruction and mask side by side
  masks/PATH.png          255 where the score is above Otsu's threshold
  uncertainty/PATH.tiff   spread of the score over seeds, with --config.fit.seeds=N
  fits/PATH.npz           reconstructions, from which `ssdnet-rescore` scores again
  params/PATH/            fitted networks, with --save_params
  results.csv, run.json   a line a picture, with the hash of its file; configuration, versions,
                          device, seed, command, hashes of the weights
  verdicts.csv            which pictures are anomalous, worst first

Exit status: 0 all pictures done, 1 some failed, 2 nothing could be started (flags, configuration,
input or work folder), 130 interrupted, 143 terminated; of --watch 0 at its end. The same command
again goes on, and scores pictures anew whose files have changed.
"""


@dataclasses.dataclass(frozen=True)
class Arguments(Execution, Configured):
    """What the command line says; None where a flag was not given."""

    input: str | None  # picture, folder or glob
    missing: str | None  # mask of missing pixels, or a folder of masks
    workdir: str | None  # where results go
    vgg19_weights: str | None  # file of VGG19
    clip_weights: str | None  # file of CLIP
    method: str  # one of `METHODS`, with options as `methods.registry` has them
    save_params: bool  # whether fitted networks are kept
    keep_gone: bool  # whether images whose files have gone keep their verdicts
    watch: bool  # whether to wait for more images until told to end


def _run(parsed: Arguments, terminal: Terminal, *, command: str) -> int:
    if not parsed.workdir:
        raise ConfigError("--workdir: found none; expected a folder for the results, see --help")
    path = Path(parsed.workdir)
    if parsed.input is None:
        for flag in ("missing", "watch"):
            if getattr(parsed, flag):
                raise ConfigError(f"--{flag}: found without --input; expected both")
        terminal.note("no --input: running on the embedded example")
    root, sources = _sources(parsed)
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
        note = {"command": command, "device": executor.device, "seed": parsed.config.seed}
        stack.enter_context(only_run_in(path, terminal.problem))
        missing = Path(parsed.missing) if parsed.missing else None
        workdir = open_workdir(path, method, root=root, missing=missing, run=note)
        terminal.note(f"{len(sources)} image{'s' * (len(sources) != 1)} on {executor.device}")
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
    if root is None and summary.finished + summary.finished_before:
        terminal.summary(example.verdict(workdir))
    terminal.summary(summary_line(summary, path, verdicts))
    return exit_status(summary)


def _sources(parsed: Arguments) -> tuple[Path | None, Mapping[str, Reader]]:
    """The folder that images are relative to, and how each is read."""
    if parsed.input is None:
        return None, example.sources()
    workdir = Path(parsed.workdir or "")
    missing = Path(parsed.missing) if parsed.missing else None
    try:
        root, relatives = startup.find_inputs(parsed.input, workdir, missing)
    except InputError:
        if not (parsed.watch and Path(parsed.input).is_dir()):
            raise
        return Path(parsed.input), {}  # they are still to come
    masks = missing_masks(missing, relatives) if missing else {}
    return root, file_sources(root, relatives, masks)


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

    def score(sources: Mapping[str, Reader]) -> None:
        nonlocal workdir, total
        workdir = without_changed(workdir, sources, terminal, stop=stop)
        done = executor.run(method, sources, workdir, terminal, options=options)
        workdir = dataclasses.replace(workdir, finished=workdir.finished_rows())
        total = Summary(total.finished + done.finished, total.failed + done.failed, 0, 0.0)

    watch(lambda: _sources(parsed)[1], score, lambda: _write_tables(parsed, workdir), stop=stop)
    verdicts = _write_tables(parsed, workdir)
    total = dataclasses.replace(total, seconds=time.monotonic() - began)
    terminal.summary(summary_line(total, workdir.path, verdicts))
    return 0


def _write_tables(parsed: Arguments, workdir: Workdir) -> Sequence[Verdict]:
    """What is said of all images of a work folder together."""
    return write_verdicts(workdir, parsed.config.image_size)


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses the command line, `--flag=value` or `--flag value`; raises ConfigError."""
    own = {
        **dict.fromkeys(("input", "missing", "workdir", "vgg19_weights", "clip_weights")),
        "method": DEFAULT_METHOD,
        **EXECUTION_FLAGS,
        **dict.fromkeys(("save_params", "keep_gone", "watch", "help_config"), False),
    }
    name, overrides, given = read_flags(arguments, own)
    config = with_overrides(load_config(name), overrides)
    check_method("--method", given["method"], own_configuration=False)
    return Arguments(config=config, **{**given, **execution_values(given)})


def help_text() -> str:
    """What `--help` prints."""
    return _USAGE.format(**shared_help())


COMMAND = Command("ssdnet", "finished images", help_text, parse, _run)
main, console = COMMAND.main, COMMAND.console
