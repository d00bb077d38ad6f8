"""Traced programs kept on disk, so that a second start of a process does not trace again.

JAX's compilation cache saves compiling, but its key is the traced program, and tracing a fit takes
seconds of Python. `program` keeps the traced program too, as StableHLO, beside that cache. Without
a compilation cache it is `jax.jit`.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import jax
import jaxlib.version
import numpy as np
import optax
from jax import export
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssdnet_jax.core import registry
from ssdnet_jax.core.fit import FitState, Weights
from ssdnet_jax.core.lanes import LaneResult, Lanes
from ssdnet_jax.core.matched_filter import Marks
from ssdnet_jax.core.score import ScoreMaps
from ssdnet_jax.core.target import Target
from ssdnet_jax.data.files import write_atomically

_CONFIG: Any = jax.config  # whose fields are not in its type
LANES, SHARED = PartitionSpec("lanes"), PartitionSpec()
# Programs in memory at a time, seven for each shape of pictures. A process may have 65,530 mapped
# pieces of memory, each program of a CPU takes some 430, and beyond that XLA ends the process.
_MOST_KEPT = 64

_TYPES = (
    *(FitState, Weights, Lanes, LaneResult, optax.ScaleByAdamState, optax.EmptyState),
    *(Target, Marks, ScoreMaps),
)
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


def program(
    function: Callable[..., Any],
    *arguments: Any,
    settings: Hashable,
    donate: tuple[int, ...] = (),
    placement: Placement | None = None,
) -> Callable[..., Any]:
    """`jax.jit` of `function(*arguments, settings=settings)`, traced once a machine.

    Args:
      function: pure, of `ssdnet_jax.core`.
      *arguments: arrays, or trees of them, of the shapes and types the program is for.
      settings: static; its text must say all that it decides.
      donate: positions of the arguments whose memory the result may reuse.
      placement: of programs that several devices share.

    Returns:
      A function of arguments of those shapes and types.
    """
    leaves, structure = jax.tree.flatten(jax.tree.map(_shape, arguments))
    return _program(function, tuple(leaves), structure, settings, donate, placement)


def forget_programs() -> None:
    """Frees the memory of all compiled programs; those needed again come from disk.

    A process that goes through many settings would otherwise end for want of memory.
    """
    _program.cache_clear()
    jax.clear_caches()


@functools.lru_cache(maxsize=_MOST_KEPT)  # one that is left out is freed, and comes from disk
def _program(
    function: Callable[..., Any],
    leaves: tuple[Any, ...],
    structure: Any,
    settings: Hashable,
    donate: tuple[int, ...],
    placement: Placement | None,
) -> Callable[..., Any]:
    def jit(function: Callable[..., Any]) -> Any:
        if placement is None:
            return jax.jit(function, donate_argnums=donate)
        return placement.jit(function, donate)

    with_settings = functools.partial(function, settings=settings)
    plain = jit(placement.divided(with_settings) if placement else with_settings)
    folder = _CONFIG.jax_compilation_cache_dir
    if not folder or registry.foreign_entries():  # whose source the digest would not see
        return plain
    name = _digest(
        function.__module__, function.__qualname__, leaves, structure, settings, donate, placement
    )
    path = Path(folder) / f"ssdnet-{name}.stablehlo"
    try:
        exported = export.deserialize(bytearray(path.read_bytes()))
    except Exception:  # absent, damaged, or of another JAX: trace it (again)
        exported = export.export(plain)(*jax.tree.unflatten(structure, leaves))
        _keep(exported, path)
    return jit(exported.call)


def _shape(argument: Any) -> jax.ShapeDtypeStruct:
    """Without JAX's weak types, which a program just traced has and one from disk has not."""
    abstract = jax.typeof(argument)
    return jax.ShapeDtypeStruct(abstract.shape, abstract.dtype)


def _keep(exported: export.Exported, path: Path) -> None:
    """Writes a program; a folder that cannot be written costs time at the next start only."""
    try:
        write_atomically(path, lambda file: file.write(exported.serialize()))
    except OSError:
        return


def _digest(*parts: Any) -> str:
    """Of everything that decides a traced program: the arguments, our source, JAX and its flags."""
    flags = (
        jax.default_backend(),
        _CONFIG.jax_enable_x64,
        _CONFIG.jax_default_matmul_precision,
        _CONFIG.jax_default_prng_impl,
        _CONFIG.jax_threefry_partitionable,
    )
    versions = (jax.__version__, jaxlib.version.__version__, optax.__version__)
    digest = hashlib.sha256(repr((parts, flags, versions)).encode())
    for source in sorted((Path(__file__).parent / "core").glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:32]
