"""Where and how the images of a command are scored: in this process, or over a Ray cluster."""

import contextlib
import dataclasses
import signal
from collections.abc import Callable, Iterator, Sequence

import jax

from ssdnet_jax.errors import ConfigError
from ssdnet_jax.runner import startup
from ssdnet_jax.runner.run import Options, Summary, run


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the images of any command are scored; changes results by rounding only."""

    lanes: int  # images that a device fits at once; 0: chosen by its memory
    devices: int  # local devices to use; 0: all
    executor: str  # one of `EXECUTORS`
    ray_address: str | None  # of the cluster, for "ray"
    heatmaps: str  # of which images the heat map is written, one of `record.HEATMAPS`


@dataclasses.dataclass(frozen=True)
class Executor:
    """What scores the images of a command."""

    run: Callable[..., Summary]  # `runner.run.run`, or `runner.ray_executor.run`
    device: str  # what it scores on, in words
    options: Options  # lanes and devices, and whether the command has been told to end
    precision: str = "that of the workers"  # of matrix products, `startup.matmul_precision`

    @property
    def note(self) -> dict[str, str]:
        """What run.json says of it."""
        return {"device": self.device, "matmul_precision": self.precision}


@contextlib.contextmanager
def executing(
    execution: Execution,
    *,
    save_params: bool = False,
    signals: Sequence[int] = (signal.SIGTERM,),
) -> Iterator[Executor]:
    """What a command line asks for, for as long as the context lasts; signals then only stop runs.

    Args:
      execution: from the command line.
      save_params: whether fitted parameters are kept.
      signals: those that stop runs.

    Raises:
      ConfigError: Ray is asked for and not installed, or there are fewer devices.
      InputError: there is no such device or cluster.
    """
    with contextlib.ExitStack() as stack:
        if execution.executor == "ray":
            from ssdnet_jax.runner import ray_executor

            device = stack.enter_context(ray_executor.joined(execution.ray_address))
            execute = ray_executor.run
        else:
            startup.compute_in_float32()
            startup.use_compilation_cache()
            startup.make_cores_devices()
            execute, device = run, startup.device_name()
            if execution.devices > (count := jax.local_device_count()):
                raise ConfigError(
                    f"--devices: found {execution.devices}; expected at most {count}, as many as "
                    f"this machine has ({device})"
                )
        stop = stack.enter_context(startup.stops_on_signals(signals))
        options = Options(
            execution.lanes, execution.devices, save_params, stop, heatmaps=execution.heatmaps
        )
        if execution.executor == "ray":
            yield Executor(execute, device, options)
        else:
            yield Executor(execute, device, options, startup.matmul_precision())
