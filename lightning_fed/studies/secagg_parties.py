"""SecAgg+ with all its parties in this process, without models or Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_fed.secagg.answers import AnsweredRounds
from lightning_fed.secagg.client import Client, Self
from lightning_fed.secagg.conductor import Conductor
from lightning_fed.secagg.keys import Directory, Identity
from lightning_fed.secagg.masks import Words
from lightning_fed.secagg.messages import Terms
from lightning_fed.secagg.parameters import Parameters
from lightning_fed.secagg.quantise import Encoding
from lightning_fed.secagg.shard import ShardSum
from lightning_fed.secagg.wire import pack


@dataclass(frozen=True)
class Exchanged:
    """What a server sees of a round: each hospital's masked vector, and the sum that it opens."""

    masked: list[Words]
    opened: Words


class Parties:
    """Hospitals and the server of a federation.

    Args:
        parameters: of the graph. encoding, length: of the vectors.
    """

    def __init__(self, parameters: Parameters, encoding: Encoding, length: int) -> None:
        identities = [Identity() for _ in range(parameters.hospitals)]
        self.directory = Directory({hospital: one.public for hospital, one in enumerate(identities)})
        self.encoding = encoding
        self.terms = Terms(parameters, encoding, length, parameters.threshold)
        self.clients = [
            Client(Self(hospital, self.terms, identity, self.directory, AnsweredRounds()))
            for hospital, identity in enumerate(identities)
        ]
        self.conductor = Conductor(self.terms, self.directory, self._ask)

    def _ask(self, method: str, messages: Mapping[int, Any]) -> Mapping[int, Any]:
        return {hospital: getattr(self.clients[hospital], method)(sent) for hospital, sent in messages.items()}

    def exchange(self, number: int, vectors: Sequence[Words]) -> Exchanged:
        """The whole round `number`, in which nobody drops out, of vectors (hospitals, length), which stay."""
        session = self.conductor.set_up(range(len(self.clients)), number)
        total = ShardSum(0, self.terms.length, self.encoding.ring_bits)
        masked = []
        for client, vector in zip(self.clients, vectors, strict=True):
            own = vector.copy()
            client.mask(number, own)
            total.add(pack(own, self.encoding.ring_bits))
            masked.append(own)
        unmasking = self.conductor.open(session, number, range(len(self.clients)))
        return Exchanged(masked, total.open(unmasking.masks))
