"""The `ssdnet` command: flags in, work folder out."""

import dataclasses
from collections.abc import Sequence
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
from ssdnet_jax.data.regions import ignored_regions
from ssdnet_jax.errors import ConfigError
from ssdnet_jax.methods.registry import DEFAULT_METHOD, make_method
from ssdnet_jax.runner import example, startup
from ssdnet_jax.runner.calibrate import calibrated
from ssdnet_jax.runner.decisions import write_defects
from ssdnet_jax.runner.executors import Execution, executing
from ssdnet_jax.runner.page import write_page
from ssdnet_jax.runner.run import file_sources, found_lines, summary_line
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.verdicts import VERDICTS, write_verdicts
from ssdnet_jax.runner.workdir import open_workdir, read_rows

_USAGE = """\
ssdnet: where is this picture not like itself?

Fits a small network to each picture alone, without training data, and marks what the network
cannot reproduce (SSDnet, arXiv 2509.18354).

  ssdnet --workdir=out                             an embedded example with a planted defect
  ssdnet --input=picture.png --workdir=out         one picture
  ssdnet --input=folder --workdir=out              all pictures below a folder
  ssdnet --input='parts/**/*.tif' --workdir=out    a glob (quoted)
  ssdnet --input=cloth --workdir=out --config=fabric --config.fit.max_steps=40

Flags:
  --input=PATH            picture, folder or glob; without it the embedded example is used
  --missing=PATH          mask of pixels that are not known (not 0 where missing), for all pictures;
                          or a folder of masks with the pictures' names
  --ignore=PATH           what is not to be judged: a mask (white is ignored) for all pictures, a
                          folder of masks with their names, or polygons as GeoJSON or COCO
  --workdir=DIR           where results go (needed); finished pictures there are not fitted again
{config}
  --image_size=PIXELS     side of the square that is fitted (256); 0: the picture's own size
  --ground=auto|keep      flat ground around a part is not judged (auto), or like the rest (keep)
  --range=auto|full|LOW,HIGH  what of full scale, 0 to 1, is stretched before a picture is analysed:
                          what it uses if that is little (auto), nothing, or the same for all
{decision}
  --calibration=FILE      what known good pictures score, written by `ssdnet-calibrate`: with it the
                          rate of false alarms is guaranteed
  --verdict=BY            picture: each by itself; folder: among the others, most of which are good;
                          by default folder from 20 pictures and without a calibration
  --fail_on_anomaly       exit with status 3 if a picture is anomalous
  --vgg19_weights=PATH    .npz, .safetensors or .pth of VGG19, for configurations that need it;
                          without it: $SSDNET_VGG19_WEIGHTS, the cache, or a download of 1 MB
{clip_weights}
  --method=NAME           {methods};
                          a baseline may have options, as in fca:border=corrected
{execution}
  --save_params           keep the fitted networks too
  --help, --help_config   this text; the configuration's fields with their values

Results in DIR:
  maps/PATH.tiff          raw anomaly score, float32, in the picture's size
  index.html              all pictures to look at in a browser, worst first, while the run goes on
  heatmaps/PATH.png       picture, heat map, reconstruction and mask side by side
  masks/PATH.png          255 where the picture is anomalous; nothing where it is good
  uncertainty/PATH.tiff   spread of the score over seeds, with --config.fit.seeds=N
  fits/PATH.npz           reconstructions, from which `ssdnet-rescore` scores again
  params/PATH/            fitted networks, with --save_params
  results.csv, run.json   a line a picture; configuration, versions, device, seed, command
  verdicts.csv            which pictures are anomalous, worst first
  defects.csv             where, how large, how sure; also defects.coco.json, defects.geojson
  decisions/PATH.json     the same, a file a picture

Exit status: 0 all pictures done, 1 some failed, 2 nothing could be started (flags, configuration,
input or work folder), 3 all done and some are anomalous (only with --fail_on_anomaly),
130 interrupted, 143 terminated. The same command again goes on.
"""


@dataclasses.dataclass(frozen=True)
class Arguments(Execution, Configured):
    """What the command line says; None where a flag was not given."""

    input: str | None  # picture, folder or glob
    missing: str | None  # mask of missing pixels, or a folder of masks
    ignore: str | None  # mask of what is not judged, a folder of masks, or polygons
    workdir: str | None  # where results go
    vgg19_weights: str | None  # file of VGG19
    clip_weights: str | None  # file of CLIP
    method: str  # one of `METHODS`, with options as `methods.registry` has them
    save_params: bool  # whether fitted networks are kept
    calibration: str | None  # file of what known good pictures score
    verdict: str | None  # one of `VERDICTS`; None: chosen by how many pictures there are
    fail_on_anomaly: bool  # whether the exit status says that a picture is anomalous


def _run(parsed: Arguments, terminal: Terminal, *, command: str) -> int:
    if not parsed.workdir:
        raise ConfigError("--workdir: found none; expected a folder for the results, see --help")
    path = Path(parsed.workdir)
    missing = Path(parsed.missing) if parsed.missing else None
    ignored = Path(parsed.ignore) if parsed.ignore else None
    if parsed.input is None:
        for name, given in {"missing": missing, "ignore": ignored}.items():
            if given:
                raise ConfigError(f"--{name}: found without --input; expected both")
        terminal.note("no --input: running on the embedded example")
        root, sources = None, example.sources()
    else:
        root, relatives = startup.find_inputs(
            parsed.input, path, missing, ignored, report=terminal.problem
        )
        masks = missing_masks(missing, relatives) if missing else {}
        regions = ignored_regions(ignored, relatives) if ignored else {}
        sources = file_sources(root, relatives, masks, regions)
    with executing(parsed, save_params=parsed.save_params) as executor:
        method = startup.with_weights(
            make_method(parsed.method, parsed.config),
            vgg19_path=parsed.vgg19_weights,
            clip_path=parsed.clip_weights,
            report=terminal.problem,
        )
        if parsed.calibration:
            method = calibrated(method, Path(parsed.calibration))
        note = {"command": command, **executor.note, "seed": parsed.config.seed}
        workdir = open_workdir(path, method, root=root, missing=missing, ignored=ignored, run=note)
        terminal.note(f"{len(sources)} image{'s' * (len(sources) != 1)} on {executor.device}")
        summary = executor.run(method, sources, workdir, terminal, options=executor.options)
    if root is None and summary.finished + summary.finished_before:
        terminal.summary(example.verdict(workdir))
    for line in found_lines(read_rows(path / "results.csv")):
        terminal.problem(line)
    verdicts = write_verdicts(
        workdir, parsed.config.decision, by=parsed.verdict, calibrated=bool(parsed.calibration)
    )
    write_defects(workdir)
    write_page(workdir, verdicts.all, total=len(sources))
    terminal.summary(summary_line(summary, path, verdicts))
    bad = parsed.fail_on_anomaly and bool(verdicts.anomalous)
    return exit_status(summary, anomalous=bad)


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses the command line, `--flag=value` or `--flag value`; raises ConfigError."""
    own = {
        **dict.fromkeys(("input", "missing", "ignore", "workdir", "vgg19_weights", "clip_weights")),
        **dict.fromkeys(("calibration", "verdict")),
        "fail_on_anomaly": False,
        "method": DEFAULT_METHOD,
        **EXECUTION_FLAGS,
        "save_params": False,
        "help_config": False,
    }
    name, overrides, given = read_flags(arguments, own)
    config = with_overrides(load_config(name), overrides)
    check_method("--method", given["method"], own_configuration=False)
    if given["verdict"] is not None:
        one_of("--verdict", given["verdict"], VERDICTS)
    return Arguments(config=config, **{**given, **execution_values(given)})


def help_text() -> str:
    """What `--help` prints."""
    return _USAGE.format(**shared_help())


COMMAND = Command("ssdnet", "finished images", help_text, parse, _run)
main, console = COMMAND.main, COMMAND.console
