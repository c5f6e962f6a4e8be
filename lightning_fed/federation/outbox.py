"""How a hospital's update leaves it: in clear, masked, or in additive shares."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lightning_fed.errors import DivergedError
from lightning_fed.experiment import Experiment, Federation
from lightning_fed.models.low_rank import Shape, decompose
from lightning_fed.models.vector import Vector
from lightning_fed.secagg.additive import additive_shares
from lightning_fed.secagg.client import Client
from lightning_fed.secagg.errors import ProtocolError
from lightning_fed.secagg.integers import IntegerSum
from lightning_fed.secagg.keys import derive_key
from lightning_fed.secagg.masks import KEY_BYTES, Words
from lightning_fed.secagg.parameters import SMALLEST_COHORT
from lightning_fed.secagg.quantise import Encoding
from lightning_fed.secagg.shard import slices
from lightning_fed.secagg.wire import pack


@dataclass(frozen=True)
class Parcel:
    """What a hospital sends of its update.

    Args:
        parts: one for each receiver. saturated: coordinates that were clipped. seconds: of work.
        bytes: where they are not the same for all hospitals and rounds.
    """

    parts: tuple[Any, ...]
    saturated: int = 0
    seconds: float = 0.0
    bytes: int | None = None


class Outbox(Protocol):
    """Turns an update into what is sent of it."""

    def send(self, round: int, update: Vector, weight: int, parts: int) -> Parcel:
        """What leaves the hospital of an update (parameters,) with its weight, in so many parts."""
        ...


class PlainOutbox:
    """The update itself: the server sees it."""

    def send(self, round: int, update: Vector, weight: int, parts: int) -> Parcel:
        """The update."""
        return Parcel((update,))


class LowRankOutbox:
    """The update as thin factors (`decompose`): the server sees them.

    Args:
        federation: how much of an update is sent in which round. shapes: of the network's weights.
    """

    def __init__(self, federation: Federation, shapes: Sequence[Shape]) -> None:
        self.federation, self.shapes = federation, shapes

    def send(self, round: int, update: Vector, weight: int, parts: int) -> Parcel:
        """The factors.

        Raises:
            DivergedError: the update is not finite.
        """
        begun = time.perf_counter()
        _refuse_diverged(round, update)
        energy = self.federation.distillation.energy(round, self.federation.rounds)
        sent = decompose(update, self.shapes, energy)
        return Parcel((sent,), seconds=time.perf_counter() - begun, bytes=sent.bytes)


def _refuse_diverged(round: int, update: NDArray[Any]) -> None:
    if not np.isfinite(update).all():
        raise DivergedError(f"round {round}: an update is not finite any more; lower training.lr")


Encode = Callable[[int, NDArray[Any], int], tuple[Words, int]]
"""Round, update (parameters,) and weight -> numbers modulo 2^32 and how many coordinates were cut."""


class _Encoder:
    """An update and its weight as integers; the rounding is drawn as the experiment says."""

    def __init__(self, experiment: Experiment, hospital: int, encoding: Encoding) -> None:
        self.experiment, self.hospital, self.encoding = experiment, hospital, encoding

    def __call__(self, round: int, update: NDArray[Any], weight: int) -> tuple[Words, int]:
        _refuse_diverged(round, update)
        return self.encoding.encode(update, weight, self._rounding_key(round))

    def _rounding_key(self, round: int) -> bytes:
        if not self.experiment.privacy.reproducible:
            return os.urandom(KEY_BYTES)
        secret = self.experiment.seed.to_bytes(8, "big")
        return derive_key(secret, b"lightning-fed", f"rounding {self.hospital} {round}".encode(), KEY_BYTES)


class _WholeNumbers:
    """Whole numbers with their noise, which are added as they are."""

    def __init__(self, encoding: IntegerSum) -> None:
        self.encoding = encoding

    def __call__(self, round: int, update: NDArray[Any], weight: int) -> tuple[Words, int]:
        return self.encoding.encode(update), 0


class MaskedOutbox:
    """A slice of the masked vector for each aggregator shard.

    Args:
        experiment: the whole run's. client: this hospital's, set up for the round.

    Attributes:
        encode: gives the vector that is to be masked.
    """

    def __init__(self, experiment: Experiment, client: Client) -> None:
        self.client = client
        encoding = client.me.terms.encoding
        self.encode: Encode = (
            _WholeNumbers(encoding)
            if isinstance(encoding, IntegerSum)
            else _Encoder(experiment, client.me.hospital, encoding)
        )

    def send(self, round: int, update: Vector, weight: int, parts: int) -> Parcel:
        """Packed slices, uint8; nothing of the update is left in clear."""
        begun = time.perf_counter()
        vector, saturated = self.encode(round, update, weight)
        self.client.mask(round, vector)
        ring_bits = self.client.me.terms.encoding.ring_bits
        packed = tuple(pack(vector[start:stop], ring_bits) for start, stop in slices(len(vector), parts))
        return Parcel(packed, saturated, time.perf_counter() - begun)


class AdditiveOutbox:
    """An additive share for each hospital of the round; they travel sealed in a real deployment.

    Args:
        experiment: the whole run's. hospital: whose. encoding: of the vectors.

    Attributes:
        encode: gives the vector that is to be shared.
    """

    def __init__(self, experiment: Experiment, hospital: int, encoding: Encoding) -> None:
        self.encode: Encode = _Encoder(experiment, hospital, encoding)

    def send(self, round: int, update: Vector, weight: int, parts: int) -> Parcel:
        """Shares, uint32 (parameters + 1,) each; of fewer than three, one would be nearly the vector itself."""
        if parts < SMALLEST_COHORT:
            raise ProtocolError(f"asked for {parts} additive shares; {SMALLEST_COHORT} hospitals or more share")
        begun = time.perf_counter()
        vector, saturated = self.encode(round, update, weight)
        shares = tuple(additive_shares(vector, parts))
        return Parcel(shares, saturated, time.perf_counter() - begun)
