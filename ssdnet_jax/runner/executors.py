"""Any method over many images; baselines into the same kind of work folder as SSDnet."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ssdnet_jax import stages
from ssdnet_jax.baselines.registry import Baseline, load_baseline
from ssdnet_jax.config import Config
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.data.images import DecodedImage, resize_map
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.runner import startup
from ssdnet_jax.runner.record import write_map
from ssdnet_jax.runner.run import DEFAULT_OPTIONS, Options, Summary, image_key, run
from ssdnet_jax.runner.sequence import run_in_order
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import Row, Workdir

if TYPE_CHECKING:
    from ssdnet_jax.baselines.clip_weights import CLIPWeights


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the images of any command are scored; changes results by rounding only.

    Attributes:
      lanes: images that a device fits at once; 0: chosen by its memory.
      devices: local devices to use; 0: all.
      executor: one of `EXECUTORS`.
      ray_address: of the cluster, for "ray".
    """

    lanes: int
    devices: int
    executor: str
    ray_address: str | None


@dataclasses.dataclass(frozen=True)
class Executor:
    """What scores the images of a command.

    Attributes:
      run_method: the function below, or the one of `runner.ray_executor`.
      device: what it scores on, in words.
      options: lanes and devices, and whether the command has been told to end.
    """

    run_method: Callable[..., Summary]
    device: str
    options: Options


@contextlib.contextmanager
def executing(execution: Execution, *, save_params: bool = False) -> Iterator[Executor]:
    """What a command line asks for, for as long as the context lasts; SIGTERM then only stops runs.

    Args:
      execution: from the command line.
      save_params: whether fitted parameters are kept.

    Raises:
      ConfigError: Ray is asked for and not installed, or there are fewer devices.
      InputError: there is no such device or cluster.
    """
    with contextlib.ExitStack() as stack:
        if execution.executor == "ray":
            from ssdnet_jax.runner import ray_executor

            device = stack.enter_context(ray_executor.joined(execution.ray_address))
            execute = ray_executor.run_method
        else:
            startup.use_compilation_cache()
            startup.make_cores_devices()
            execute, device = run_method, startup.device_name()
            if execution.devices > (count := jax.local_device_count()):
                raise ConfigError(
                    f"--devices: found {execution.devices}; expected at most {count}, as many as "
                    f"this machine has ({device})"
                )
        stop = stack.enter_context(startup.stops_on_sigterm())
        options = Options(execution.lanes, execution.devices, save_params, stop)
        yield Executor(execute, device, options)


def run_method(
    method: str,
    sources: Mapping[str, Callable[[], DecodedImage]],
    config: Config,
    workdir: Workdir,
    terminal: Terminal,
    *,
    vgg19_path: str | None = None,
    clip_path: str | None = None,
    options: Options = DEFAULT_OPTIONS,
) -> Summary:
    """Scores images with any method, after loading the weights that it needs.

    Args:
      method: "ssdnet", or one of `baselines.registry.NAMES`.
      sources: relative path -> function that reads the image.
      config: SSDnet's; of it baselines take `image_size` and `seed`.
      workdir: opened for this method.
      terminal: shows progress and problems.
      vgg19_path: file of VGG19, for methods that need it.
      clip_path: file of CLIP, likewise.
      options: see `Options`.

    Raises:
      InputError: there are no weights.
    """
    load = functools.partial(startup.vgg19_weights, vgg19_path, terminal.problem)
    if method == "ssdnet":
        vgg19 = load(needed=config.needs_vgg19)
        return run(sources, config, workdir, terminal, vgg19=vgg19, options=options)
    baseline = load_baseline(method)
    vgg19 = load(needed=baseline.needs_vgg19)
    clip = startup.clip_weights(clip_path, needed=baseline.needs_clip)
    return run_baseline(
        sources, baseline, config, workdir, terminal, vgg19=vgg19, clip=clip, options=options
    )


def run_baseline(
    sources: Mapping[str, Callable[[], DecodedImage]],
    baseline: Baseline,
    config: Config,
    workdir: Workdir,
    terminal: Terminal,
    *,
    vgg19: VGG19Weights | None = None,
    clip: "CLIPWeights | None" = None,
    options: Options = DEFAULT_OPTIONS,
) -> Summary:
    """Scores each image with a baseline; `runner.run.run` says what is written and what fails.

    Of `config` only `image_size` and `seed` matter. A missing pixel takes the value of the nearest
    known one: baselines have no inpainting stage.
    """
    weights = {"vgg19": vgg19, "clip": clip}

    def score(relative: str) -> Row:
        return _score(relative, sources[relative], baseline, config, workdir, terminal, weights)

    return run_in_order(sources, score, workdir, terminal, stop=options.stop)


def _score(
    relative: str,
    read: Callable[[], DecodedImage],
    baseline: Baseline,
    config: Config,
    workdir: Workdir,
    terminal: Terminal,
    weights: Mapping[str, Any],
) -> Row:
    decoded = read()
    for warning in decoded.warnings:
        terminal.problem(f"{relative}: {warning}")
    prepared = stages.prepare(decoded.pixels, config, missing=decoded.missing)
    fitted = fill_nearest(prepared.fitted, prepared.fitted_missing)
    key = image_key(config.seed, relative)
    raw = np.asarray(baseline(fitted, key=key, **weights), np.float32)
    if not np.isfinite(raw).all():
        raise InputError(f"{baseline.name} gave a map that is not finite; expected numbers")
    pixels = fill_nearest(prepared.pixels, prepared.missing)
    score_map = resize_map(raw, pixels.shape[:2])
    threshold = stages.otsu_threshold(score_map)
    return write_map(workdir, relative, pixels, score_map, threshold)


def fill_nearest(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """An image (h, w, c) whose missing pixels have the value of the nearest known one."""
    if not missing.any():
        return image
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
    return image[tuple(nearest)]
