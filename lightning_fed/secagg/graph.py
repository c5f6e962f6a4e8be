"""Who shares secrets and masks with whom: the complete graph, or a Harary ring in an order drawn from a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property

from lightning_fed.secagg.parameters import Parameters


class Graph:
    """The neighbours of each hospital of a session.

    In the ring a hospital's neighbours are the degree/2 nearest on either side, and the order on the ring is
    that of a hash of each hospital with the digest of all signed keys, which hold fresh nonces: it does not
    depend on who is corrupt. (That holds for a server that is honest until the keys are out, Bell et al.'s
    semi-malicious model. One that is not, with a hospital that advertises last, could try nonces for an order that
    it likes; hospitals bound how often it may start anew.)

    Args:
        hospitals: of the session, which may be fewer than the parameters are for.
        parameters: the degree; where there are no more hospitals than that, everybody is a neighbour.
        digest: of the session's signed keys.
    """

    def __init__(self, hospitals: Iterable[int], parameters: Parameters, digest: bytes) -> None:
        self.hospitals = tuple(sorted(hospitals))
        self.parameters, self.digest = parameters, digest

    @cached_property
    def _ring(self) -> list[int]:
        return sorted(
            self.hospitals,
            key=lambda hospital: hashlib.sha256(self.digest + hospital.to_bytes(8, "big")).digest(),
        )

    @cached_property
    def _position(self) -> dict[int, int]:
        return {hospital: position for position, hospital in enumerate(self._ring)}

    def neighbours(self, hospital: int) -> tuple[int, ...]:
        """Ascending, without the hospital itself.

        Raises:
            KeyError: it is not in the session.
        """
        here, size = self._position[hospital], len(self._ring)
        if self.parameters.degree >= size - 1:
            return tuple(other for other in self.hospitals if other != hospital)
        reach = self.parameters.degree // 2
        steps = [*range(-reach, 0), *range(1, reach + 1)]
        return tuple(sorted(self._ring[(here + step) % size] for step in steps))

    def holders(self, hospital: int) -> tuple[int, ...]:
        """Who holds shares of its secrets, and whose it holds: its neighbours, and itself where that is so."""
        neighbours = self.neighbours(hospital)
        return tuple(sorted((*neighbours, hospital))) if self.parameters.owner_holds_one else neighbours
