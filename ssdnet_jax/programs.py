"""Traced programs kept on disk, so that a second start of a process does not trace again.

JAX's compilation cache saves compiling, but its key is the traced program, and tracing a fit takes
seconds of Python. `program` keeps the traced program too, as StableHLO, beside that cache. Without
a compilation cache it is `jax.jit`, compiled ahead of its first call.
"""

import dataclasses
import functools
import hashlib
import threading
from collections.abc import Callable, Hashable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jaxlib.version
import numpy as np
from jax import export
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from ssdnet_jax.core import registry
from ssdnet_jax.core.batch import IN_ONE_THREAD
from ssdnet_jax.core.fit import Adam, FitState, Weights
from ssdnet_jax.core.lanes import LaneResult, Lanes
from ssdnet_jax.core.matched_filter import Marks
from ssdnet_jax.core.score import ScoreMaps
from ssdnet_jax.core.target import Target
from ssdnet_jax.data.files import write_bytes

_CONFIG: Any = jax.config  # whose fields are not in its type
LANES, SHARED = PartitionSpec("lanes"), PartitionSpec()
# Programs in memory at a time, eight for each shape of images. A process may have 65,530 mapped
# pieces of memory, each program of a CPU takes some 430, and beyond that XLA ends the process.
_MOST_KEPT = 64
# JAX keeps other programs by itself, such as those of baselines, some 200 pieces for each shape of
# images. All are freed once so large a share of the pieces that a process may have is in use.
_MAPS, _LIMIT = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")  # of Linux
_MOST_MAPPED = 0.6
_LOOKING_UP = threading.Lock()

_TYPES = (FitState, Weights, Adam, Lanes, LaneResult, Target, Marks, ScoreMaps)
for _type in _TYPES:
    export.register_namedtuple_serialization(_type, serialized_name=f"ssdnet_jax.{_type.__name__}")


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a program runs that several devices share."""

    devices: int  # the first so many local ones
    arguments: tuple[PartitionSpec, ...]  # of each argument, LANES if its first axis is divided
    # among the devices, or SHARED
    result: PartitionSpec  # likewise
    on_each: bool = False  # whether each device runs the function on its own part, without the
    # others; else it is one function of the whole arrays

    def jit(self, function: Callable[..., Any], donate: tuple[int, ...]) -> Callable[..., Any]:
        """`jax.jit` on these devices."""
        return jax.jit(
            function,
            in_shardings=tuple(map(self._sharding, self.arguments)),
            out_shardings=self._sharding(self.result),
            donate_argnums=donate,
        )

    def placed(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments on these devices; what another program left on one of them is moved."""
        return tuple(
            jax.device_put(argument, self._sharding(spec))
            for argument, spec in zip(arguments, self.arguments, strict=True)
        )

    def divided(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as each device runs it."""
        if not self.on_each:
            return function
        return jax.shard_map(
            function,
            mesh=self._mesh(),
            in_specs=self.arguments,
            out_specs=self.result,
            check_vma=False,
        )

    def _mesh(self) -> Mesh:
        return Mesh(np.array(jax.local_devices()[: self.devices]), ("lanes",))

    def _sharding(self, spec: PartitionSpec) -> NamedSharding:
        return NamedSharding(self._mesh(), spec)


class Program:
    """A function of arguments of certain shapes and types, traced and compiled when it is needed.

    By whichever thread asks first; others wait for it.
    """

    def __init__(self, lower: Callable[[], Any], *, in_one_thread: bool = False):
        """A program that is not traced yet.

        Args:
          lower: traces it; gives a `jax.stages.Lowered`.
          in_one_thread: as of `program`.
        """
        self._in_one_thread = in_one_thread
        self._lower, self._tracing, self._compiling = lower, threading.Lock(), threading.Lock()
        self._lowered: Any = None  # until it is compiled
        self._result: Any = None
        self._compiled: Callable[..., Any] | None = None

    @property
    def result(self) -> Any:
        """Shapes and types of what it returns, for which it need not be compiled."""
        with self._tracing:
            if self._result is None:
                self._lowered = self._lower()
                self._result = jax.tree.map(_shape, self._lowered.out_info)
            return self._result

    def compiled(self) -> "Program":
        """The program once it is compiled; raises what compiling raises."""
        with self._compiling:
            if self._compiled is None:
                _ = self.result  # traces it
                options = IN_ONE_THREAD if self._in_one_thread else None
                self._compiled = self._lowered.compile(compiler_options=options)
                self._lowered = None
        return self

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns."""
        assert self._compiled is not None
        return self._compiled(*arguments)


def program(
    function: Callable[..., Any],
    *arguments: Any,
    settings: Hashable,
    donate: tuple[int, ...] = (),
    placement: Placement | None = None,
    in_one_thread: bool = False,
) -> Program:
    """`jax.jit` of `function(*arguments, settings=settings)`, traced once a machine.

    Args:
      function: pure, of `ssdnet_jax.core`.
      *arguments: arrays, or trees of them, of the shapes and types the program is for; also only
        these, as `Program.result` has them.
      settings: static; its text must say all that it decides.
      donate: positions of the arguments whose memory the result may reuse.
      placement: of programs that several devices share.
      in_one_thread: whether a CPU is to run it in one thread, so that Fourier transforms give the
        same bits each time (`core.batch.IN_ONE_THREAD`).

    Returns:
      A compiled function of arguments of those shapes and types.
    """
    found = _looked_up(function, arguments, settings, donate, placement, in_one_thread)
    return found.compiled()


def result_of(function: Callable[..., Any], *arguments: Any, settings: Hashable) -> Any:
    """Shapes and types of what the `program` of these arguments returns; it is not compiled."""
    return _looked_up(function, arguments, settings, (), None, False).result


def forget_programs() -> None:
    """Frees the memory of all compiled programs; those needed again come from disk.

    A process that goes through many settings would otherwise end for want of memory.
    """
    _program.cache_clear()
    jax.clear_caches()


def make_room_for_programs() -> bool:
    """Frees all compiled programs if so many are kept that XLA would soon end the process.

    To be called before programs of another shape are compiled. Other threads may trace, compile and
    run programs meanwhile: what is under way holds its program, and JAX's caches are cleared under
    Python's lock (https://github.com/jax-ml/jax/issues/19590).

    Returns:
      Whether they were freed; never on systems without such a limit, which is Linux's.
    """
    try:
        mapped, limit = _MAPS.read_bytes().count(b"\n"), int(_LIMIT.read_text())
    except (OSError, ValueError):
        return False
    if mapped < _MOST_MAPPED * limit:
        return False
    forget_programs()
    return True


@functools.lru_cache(maxsize=_MOST_KEPT)  # one that is left out is freed, and comes from disk
def _program(in_one_thread: bool, *key: Any) -> Program:
    return Program(functools.partial(_lower, *key), in_one_thread=in_one_thread)


def _looked_up(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    settings: Hashable,
    donate: tuple[int, ...],
    placement: Placement | None,
    in_one_thread: bool,
) -> Program:
    leaves, structure = jax.tree.flatten(jax.tree.map(_shape, arguments))
    device = None if placement else _device(arguments)
    with _LOOKING_UP:  # or two threads would have a program each
        key = (function, tuple(leaves), structure, settings, donate, placement, device)
        return _program(in_one_thread, *key)


def _lower(
    function: Callable[..., Any],
    leaves: tuple[Any, ...],
    structure: Any,
    settings: Hashable,
    donate: tuple[int, ...],
    placement: Placement | None,
    device: jax.Device | None,
) -> Any:
    """The traced function, ready to be compiled."""

    def jit(function: Callable[..., Any]) -> Any:
        if placement is None:
            return jax.jit(function, donate_argnums=donate)
        return placement.jit(function, donate)

    def lowered(function: Any) -> Any:
        placed = leaves
        if device is not None:
            sharding = SingleDeviceSharding(device)
            placed = tuple(
                jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for x in leaves
            )
        return function.lower(*jax.tree.unflatten(structure, placed))

    with_settings = functools.partial(function, settings=settings)
    plain = jit(placement.divided(with_settings) if placement else with_settings)
    folder = _CONFIG.jax_compilation_cache_dir
    if not folder or registry.foreign_entries():  # whose source the digest would not see
        return lowered(plain)
    name = _digest(
        function.__module__, function.__qualname__, leaves, structure, settings, donate, placement
    )
    path = Path(folder) / f"ssdnet-{name}.stablehlo"
    try:
        exported = export.deserialize(bytearray(path.read_bytes()))
    except Exception:  # absent, damaged, or of another JAX: trace it (again)
        exported = export.export(plain)(*jax.tree.unflatten(structure, leaves))
        _keep(exported, path)
    return lowered(jit(exported.call))


def _shape(argument: Any) -> jax.ShapeDtypeStruct:
    """Without JAX's weak types, which a program just traced has and one from disk has not."""
    if isinstance(argument, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(argument.shape, argument.dtype)
    abstract = jax.typeof(argument)
    return jax.ShapeDtypeStruct(abstract.shape, abstract.dtype)


def _device(arguments: tuple[Any, ...]) -> jax.Device:
    """The device that arguments have been put on, or else JAX's default."""
    arrays = [leaf for leaf in jax.tree.leaves(arguments) if isinstance(leaf, jax.Array)]
    found = [device for array in arrays if array.committed for device in array.devices()]
    if found:
        return found[0]
    default = _CONFIG.jax_default_device
    if default is None or isinstance(default, str):  # the name of a platform
        default = jax.local_devices(backend=default)[0]
    return default


def _keep(exported: export.Exported, path: Path) -> None:
    """Writes a program; a folder that cannot be written costs time at the next start only."""
    try:
        write_bytes(path, exported.serialize())
    except OSError:
        return


def _digest(*parts: Any) -> str:
    """Hash of all that decides a traced program: arguments, source of `core`, JAX and its flags."""
    flags = (
        jax.default_backend(),
        _CONFIG.jax_enable_x64,
        _CONFIG.jax_default_matmul_precision,
        _CONFIG.jax_default_prng_impl,
        _CONFIG.jax_threefry_partitionable,
    )
    versions = (jax.__version__, jaxlib.version.__version__, metadata.version("optax"))
    digest = hashlib.sha256(repr((parts, flags, versions)).encode())
    for source in sorted((Path(__file__).parent / "core").glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:32]
