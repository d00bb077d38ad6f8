"""What a process needs before it can run: inputs, compilation cache, device, weights."""

import contextlib
import hashlib
import os
import platform
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jaxlib.version

from ssdnet_jax.data.files import real_path, user_cache_folder
from ssdnet_jax.data.images import search_images, with_pages
from ssdnet_jax.errors import InputError
from ssdnet_jax.methods.base import Method
from ssdnet_jax.runner.workdir import RESULT_FOLDERS, is_workdir
from ssdnet_jax.text import counted

_PATIENCE = (
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=3600 "
    "--xla_cpu_collective_call_terminate_timeout_seconds=3600"
)
_LAST_TRIED = (0, 12)  # version of jaxlib that knows these flags of XLA


def find_inputs(
    pattern: str,
    workdir: Path,
    missing: Path | None = None,
    ignored: Path | None = None,
    *,
    report: Callable[[str], None] = lambda text: None,
) -> tuple[Path, list[Path]]:
    """Images that `pattern` names, without those that runs of `ssdnet` have written.

    Every page of a TIFF is an image. Masks of a labelled dataset, `ground_truth` beside `test`, are
    none.

    Args:
      pattern: image, folder or glob.
      workdir: of the run to come.
      missing: masks of missing pixels, a file or a folder, which are no images either.
      ignored: masks of what is not judged, likewise.
      report: told, in a line each, which files of a folder are left out.

    Returns:
      The root and the paths below it; see `data.images.search_images`, and `with_pages` for pages.

    Raises:
      InputError: there is none.
    """
    if not pattern:
        raise InputError("--input: found no name; expected an image, a folder or a glob")
    found = search_images(pattern)
    root = found.root
    kept = [path for path in found.images if not _is_result(root, path, real_path(workdir))]
    if not kept:
        raise InputError(f"{pattern}: found only results of ssdnet; expected images")
    for flag, path in {"--missing": missing, "--ignore": ignored}.items():
        if path is None:
            continue
        masks = os.path.realpath(path)
        kept = [p for p in kept if not Path(os.path.realpath(root / p)).is_relative_to(masks)]
        if not kept:
            raise InputError(f"{pattern}: found only the masks of {flag}; expected images")
    labels = [path for path in kept if _is_ground_truth(root, path)]
    kept = [path for path in kept if path not in set(labels)]
    if not kept:
        raise InputError(f"{pattern}: found only masks in ground_truth; expected images")
    others = [p for p in found.others if not _belongs_to_a_run(root, p, real_path(workdir))]
    _report_left_out(report, labels, "masks in ground_truth, which are labels and no images")
    _report_left_out(report, others, "no images by their name or content")
    _report_left_out(report, found.unreadable, "folders that cannot be searched")
    images = with_pages(root, kept)
    doubled = [path for path, times in Counter(images).items() if times > 1]
    _report_left_out(report, doubled, "pages that go by the name of a file, which is taken")
    return root, list(dict.fromkeys(images))


def _report_left_out(report: Callable[[str], None], paths: Sequence[Path], what: str) -> None:
    """How many files are left out and why, with the first of them by name."""
    if paths:
        names = ", ".join(path.as_posix() for path in paths[:3])
        more = ", ..." if paths[3:] else ""
        report(f"{len(paths)} left out, {what}: {names}{more}")


def _is_ground_truth(root: Path, relative: Path) -> bool:
    """Whether a file is a label in the layout of MVTec AD, or of its successors."""
    return any(
        folder.name == "ground_truth"
        and any((root / folder.parent / name).is_dir() for name in ("test", "good", "bad"))
        for folder in relative.parents
    )


def _belongs_to_a_run(root: Path, relative: Path, workdir: Path) -> bool:
    """Whether a file lies in a work folder, whose tables and notes need no word."""
    file = Path(os.path.realpath(root / relative))
    return file.is_relative_to(workdir) or any(
        is_workdir(root / folder) for folder in relative.parents
    )


def _is_result(root: Path, relative: Path, workdir: Path) -> bool:
    """Whether an image lies in a result folder of `workdir`, or of another one below `root`."""
    image = Path(os.path.realpath(root / relative))  # unlike resolve(), lets links in circles pass
    if any(image.is_relative_to(workdir / name) for name in RESULT_FOLDERS):
        return True
    return any(
        folder.name in RESULT_FOLDERS and is_workdir(root / folder.parent)
        for folder in relative.parents
    )


def compute_in_float32() -> None:
    """What commands compute is float32, also where JAX_ENABLE_X64 asks for more.

    A part of each result would be of more digits, and none the same bits as without it.
    """
    jax.config.update("jax_enable_x64", False)


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second start is quick.

    The cache holds executable code: its folder is private to the user, and there is one for each
    version of jaxlib and each kind of processor, whose programs would not run on another. A folder
    that JAX was given through its own environment variable is left as it is.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    try:
        folder = user_cache_folder() / "xla"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            return  # others could have put programs there
        folder.chmod(0o700)
        folder /= f"jaxlib-{jaxlib.version.__version__}-{_processor()}"
        folder.mkdir(mode=0o700, exist_ok=True)
    except (OSError, InputError):
        return  # without a cache the run is slower, nothing else
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _processor() -> str:
    """The kind of processor, with a digest of what it can do where the system says so."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    abilities = [line for line in lines if line.startswith(("flags", "Features", "model name"))]
    digest = hashlib.sha256("".join(sorted(set(abilities))).encode()).hexdigest()[:12]
    return f"{platform.machine() or 'unknown'}-{digest}"


def make_cores_devices() -> None:
    """Makes each core of a CPU a device, so that several images are fitted side by side.

    One image alone still uses all cores, whose threads the devices share. Before JAX has
    started, else nothing happens; nor if the environment says how many devices there are.
    """
    _let_devices_wait()
    if "JAX_NUM_CPU_DEVICES" in os.environ or "device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    with contextlib.suppress(RuntimeError):  # JAX has started
        jax.config.update("jax_num_cpu_devices", cores())


def _let_devices_wait() -> None:
    """Gives devices of a CPU an hour to wait for each other, where XLA would give them a minute.

    It takes one that is late for one that hangs, and ends the process. Cores that other programs
    keep busy, or a large image, may be later than that.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    # XLA ends a process for a flag that it does not know: these are known to the versions tried.
    known = jaxlib.version.__version_info__[:2] <= _LAST_TRIED
    if known and "collective_call" not in flags:
        os.environ["XLA_FLAGS"] = f"{_PATIENCE} {flags}".strip()


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def stops_on_signals(
    signals: Sequence[int] = (signal.SIGTERM,),
) -> Iterator[Callable[[], bool]]:
    """While it lasts, signals only make the function it gives true: a run then ends in order.

    A second one ends the process at once, with the exit status that shells give to it.
    """
    asked = threading.Event()

    def ask(number: int, frame: Any) -> None:
        if asked.is_set():
            os._exit(128 + number)
        asked.set()

    try:
        before = {number: signal.signal(number, ask) for number in signals}
    except ValueError:  # signals belong to the main thread
        yield asked.is_set
        return
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def device_name() -> str:
    """The device that fits run on, in words.

    Raises:
      InputError: JAX cannot use the platform that was asked for, by JAX_PLATFORMS.
    """
    try:
        device = jax.devices()[0]
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"JAX found no device ({reason}); expected a CPU or a GPU") from error
    if device.platform == "cpu":
        return f"CPU ({counted(cores(), 'core')})"
    return f"{device.device_kind} ({device.platform})"


def matmul_precision() -> str:
    """The arithmetic of float32 matrix products on the device that fits run on, in words.

    What JAX was told (JAX_DEFAULT_MATMUL_PRECISION), or else the device's own way. Products of
    which more is asked, as those of the score's sums, are in float32 anywhere.
    """
    config: Any = jax.config  # whose fields are not in its type
    if told := config.jax_default_matmul_precision:
        return str(told)
    device = jax.devices()[0]
    if device.platform == "tpu":
        return "bfloat16"
    if device.platform in {"gpu", "cuda"}:
        # NVIDIA's since Ampere; others' have no such number.
        capability = str(getattr(device, "compute_capability", ""))
        major = capability.split(".")[0]
        return "tensorfloat32" if major.isdecimal() and int(major) >= 8 else "float32"
    return "float32"


def with_weights(
    method: Method,
    *,
    vgg19_path: str | None = None,
    clip_path: str | None = None,
    report: Callable[[str], None],
) -> Method:
    """The method with the weights that it needs, from files or the cache.

    Where a configuration leaves its features open, there may be no VGG19 weights: features then
    are a filter bank's, which is said.

    Args:
      method: without weights.
      vgg19_path: file of VGG19 that the user has named, if any.
      clip_path: file of CLIP, likewise.
      report: told what a person should know.

    Raises:
      InputError: there are no weights, or a file that the user has named cannot be used.
    """
    vgg19, clip = None, None
    if method.needs_vgg19 or method.can_do_without_vgg19:
        from ssdnet_jax.data.weights import load_vgg19_weights

        try:
            vgg19 = load_vgg19_weights(vgg19_path, report=report)
        except InputError as error:
            if (
                not method.can_do_without_vgg19
                or vgg19_path
                or os.environ.get("SSDNET_VGG19_WEIGHTS")
            ):
                raise
            report(f"no VGG19 weights, features are a filter bank's, which find less: {error}")
    if method.needs_clip:
        from ssdnet_jax.baselines.clip_weights import load_clip_weights

        clip = load_clip_weights(clip_path)
    return method.with_weights(vgg19=vgg19, clip=clip)
