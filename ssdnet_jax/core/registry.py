"""Parts of the method that a configuration chooses by name, and how to add one's own.

    from ssdnet_jax import registry

    @registry.RECONSTRUCTION_ERRORS.register("quartic")
    def quartic(y, f):
        return ((y - f) ** 4).mean(-1)

in a configuration file makes `--config.loss.reconstruction=quartic` legal (docs/laboratory.md). The
registries are filled when `ssdnet_jax.core` is imported, and by configuration files when they are
read; nothing in a compiled function changes them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

Entry = TypeVar("Entry")


class Registry(Mapping[str, Any]):
    """Functions by name.

    Attributes:
      field: of the configuration, in which a name is chosen.
      signature: what a function takes and gives, for people.
    """

    def __init__(self, field: str, signature: str):
        self.field, self.signature = field, signature
        self._entries: dict[str, Any] = {}
        self._own: frozenset[str] = frozenset()

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """A decorator that gives an entry its name. Registered again, an entry is replaced.

        Raises:
          ValueError: the name is no identifier, or belongs to this package.
        """
        if not name.isidentifier():
            raise ValueError(f"{self.field}: found the name {name!r}; expected letters, digits, _")
        if name in self._own:
            raise ValueError(f"{self.field}: the name {name!r} is taken; expected another")

        def put(entry: Entry) -> Entry:
            self._entries[name] = entry
            return entry

        return put

    def register_own(self, name: str) -> Callable[[Entry], Entry]:
        """`register` for what this package brings: nobody can replace it."""

        def put(entry: Entry) -> Entry:
            self._entries[name] = entry
            self._own |= {name}
            return entry

        return put

    def foreign(self) -> dict[str, Any]:
        """The entries that this package did not bring."""
        return {name: entry for name, entry in self._entries.items() if name not in self._own}

    def __getitem__(self, name: str) -> Any:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


RECONSTRUCTION_ERRORS = Registry(
    "loss.reconstruction", "(y (..., c), f (..., c)) -> error of each pixel (...), >= 0"
)
PERCEPTUAL_SIMILARITIES = Registry(
    "loss.perceptual", "(phi(y) (..., f), phi(f) (..., f)) -> similarity at each position (...)"
)
AGGREGATIONS = Registry(
    "loss.aggregation", "(terms (resolutions, ...)) -> (...), Lambda of Eqs. 2 and 3"
)
NETWORKS = Registry("network.kind", "a core.networks.Network")
TARGETS = Registry("features.kind", "a core.target.TargetKind")
SCORES = Registry(
    "score.method",
    "(core.target.Target, reconstruction, vgg19, plan) -> core.score.ScoreMaps (h, w)",
)

ALL = (RECONSTRUCTION_ERRORS, PERCEPTUAL_SIMILARITIES, AGGREGATIONS, NETWORKS, TARGETS, SCORES)


def foreign_entries() -> dict[str, dict[str, Any]]:
    """What has been added to this package's own, by field; for another process to `adopt`."""
    return {registry.field: found for registry in ALL if (found := registry.foreign())}


def adopt(entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Registers what another process's `foreign_entries` gave."""
    by_field = {registry.field: registry for registry in ALL}
    for field, found in entries.items():
        for name, entry in found.items():
            by_field[field].register(name)(entry)
