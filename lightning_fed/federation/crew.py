"""Who does the hospitals' work: the interface, and the one that does it in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lightning_fed.federation.aggregator import LocalShards, Shards

if TYPE_CHECKING:
    from lightning_fed.federation.site import Site


@dataclass(frozen=True)
class Place:
    """Where a site runs: a node, and a GPU of it or None."""

    node: str
    gpu: str | None


@dataclass(frozen=True)
class Capacity:
    """How many sites may work at the same time on each node and on each GPU."""

    per_node: dict[str, int]
    per_gpu: int


@dataclass(frozen=True)
class Lost:
    """What comes back of work that was lost.

    Args:
        reason: in words. site: whether the site is gone, or only an object that the work was to read.
    """

    reason: str
    site: bool = True


class NoRoom:
    """In place of a ticket: the site may come back, but nothing has room for it now."""


class Crew(Protocol):
    """Sites that can be given work; `Any` is a value that only the crew itself understands."""

    places: Sequence[Place]
    capacity: Capacity
    ahead: int
    """How many jobs a site may be sent beside the one that it works on."""

    def put(self, value: Any) -> Any:
        """Make a value available to every site, stored once."""
        ...

    def start(self, site: int, method: str, arguments: tuple[Any, ...], apart: int = 0) -> Any:
        """Begin `method` at a site; the ticket is for `wait`.

        Args:
            apart: the method gives a tuple, of which so many last values stay where they are: `wait` gives
                what stands for them.
        """
        ...

    def wait(self, tickets: Sequence[Any], seconds: float | None = None) -> list[tuple[Any, Any]]:
        """Block until at least one of the tickets is done; (ticket, result, or `Lost`) of each that is.

        Args:
            seconds: to wait at most, None without a limit; none is done then.
        """
        ...

    def revive(self, site: int, rounds: Mapping[int, int]) -> Any:
        """Begin to bring a lost site back, with its hospitals' states of the end of `rounds` (hospital -> round).

        Returns:
            The ticket for `wait`, which gives `Lost` where it did not come; `NoRoom` where it could not be begun
            now; None where sites do not come back.
        """
        ...

    def open_shards(self, count: int) -> Shards:
        """Start the aggregator's shards."""
        ...

    def fetch(self, value: Any) -> Any:
        """The value itself of what `start`'s work left at a distance."""
        ...

    def close(self) -> None:
        """End the sites."""
        ...


class LocalCrew:
    """One site in this process: for a debugger, or a machine without Ray (`ray.enabled: false`)."""

    ahead = 0  # work is done when it is sent

    def __init__(self, site: Site) -> None:
        self.site = site
        self.places: Sequence[Place] = (Place("this process", None),)
        self.capacity = Capacity({"this process": 1}, 1)
        self._results: dict[int, Any] = {}
        self._tickets = 0

    def put(self, value: Any) -> Any:
        """The value."""
        return value

    def start(self, site: int, method: str, arguments: tuple[Any, ...], apart: int = 0) -> int:
        """Do the work at once."""
        self._tickets += 1
        self._results[self._tickets] = getattr(self.site, method)(*arguments)
        return self._tickets

    def wait(self, tickets: Sequence[int], seconds: float | None = None) -> list[tuple[int, Any]]:
        """All of them: they are done."""
        return [(ticket, self._results.pop(ticket)) for ticket in tickets]

    def fetch(self, value: Any) -> Any:
        """The value."""
        return value

    def revive(self, site: int, rounds: Mapping[int, int]) -> None:
        """This process is not lost."""

    def open_shards(self, count: int) -> Shards:
        """In this process."""
        return LocalShards(count)

    def close(self) -> None:
        """Nothing to end."""
