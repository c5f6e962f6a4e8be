"""All parties of SecAgg+ in one process: honest hospitals, and a server that can be made to lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_fed.secagg.answers import AnsweredRounds
from lightning_fed.secagg.client import Client, Self
from lightning_fed.secagg.conductor import LOST_AT, STAGES, Conductor, refuse_politely
from lightning_fed.secagg.errors import ProtocolError
from lightning_fed.secagg.keys import Directory, Identity, KeyPair
from lightning_fed.secagg.masks import Context, Mask, Words, apply_masks, pair_mask
from lightning_fed.secagg.messages import Answer, Terms
from lightning_fed.secagg.parameters import Parameters, complete_graph
from lightning_fed.secagg.quantise import Encoding
from lightning_fed.secagg.server import AdvertiseStage, Session, ShareStage, Unmasking, UnmaskStage, open_session
from lightning_fed.secagg.shamir import combine
from lightning_fed.secagg.shard import ShardSum, slices
from lightning_fed.secagg.wire import pack

NEVER = len(STAGES)
"""The stage at which a hospital drops out that does not."""
UPLOAD = STAGES.index("after_shares")


def terms_for(
    parameters: Parameters | int,
    length: int = 6,
    bits: int = 12,
    rounds: int = 1,
    min_survivors: int | None = None,
) -> Terms:
    """Terms of some parameters, or of a complete graph of so many hospitals.

    Args:
        length: integers of a vector, the weight included.
    """
    if isinstance(parameters, int):
        parameters = complete_graph(parameters)
    encoding = Encoding(parameters.hospitals, clip=1.0, bits=bits, max_weight=1000)
    return Terms(parameters, encoding, length, min_survivors or parameters.threshold, rounds)


@dataclass(frozen=True)
class Exchange:
    """A message to a hospital and what came back; None where it was gone."""

    method: str
    hospital: int
    message: Any
    answer: Any


class Parties:
    """The hospitals of a federation, and a conductor that reaches them.

    Args:
        terms: of all. folder: where answered rounds are kept; None keeps them in memory.

    Attributes:
        dropping: the stage (an index of STAGES) at which a hospital is gone. transcript: all that passed through
            the server. tamper: changes a hospital's answer on its way.
    """

    def __init__(self, terms: Terms, folder: Path | None = None) -> None:
        self.terms, self.folder = terms, folder
        self.hospitals = range(terms.parameters.hospitals)
        self.identities = {hospital: Identity() for hospital in self.hospitals}
        self.directory = Directory({hospital: identity.public for hospital, identity in self.identities.items()})
        self.clients: dict[int, Client] = {}
        for hospital in self.hospitals:
            self.restart(hospital)
        self.dropping: Mapping[int, int] = {}
        self.transcript: list[Exchange] = []
        self.tamper: Callable[[str, int, Any], Any] = lambda method, hospital, answer: answer
        self.conductor = Conductor(terms, self.directory, self.ask)

    def restart(self, hospital: int) -> Client:
        """A hospital's process ends and starts again: what is left is its identity and its file."""
        answered = AnsweredRounds(self.folder / str(hospital) / "answered.txt" if self.folder else None)
        client = Client(Self(hospital, self.terms, self.identities[hospital], self.directory, answered))
        self.clients[hospital] = client
        return client

    def gone(self, hospital: int, stage: int) -> bool:
        """Whether it has dropped out at that stage or before."""
        return self.dropping.get(hospital, NEVER) <= stage

    def ask(self, method: str, messages: Mapping[int, Any]) -> dict[int, Any]:
        """Deliver messages; hospitals that are gone say nothing."""
        answers = {}
        for hospital, message in messages.items():
            if self.gone(hospital, STAGES.index(LOST_AT[method])):
                self.transcript.append(Exchange(method, hospital, message, None))
                continue
            call = getattr(self.clients[hospital], method)
            answer = refuse_politely(hospital, lambda call=call, message=message: call(message))
            answers[hospital] = self.tamper(method, hospital, answer)
            self.transcript.append(Exchange(method, hospital, message, answers[hospital]))
        return answers

    def upload(self, round: int, vectors: Mapping[int, Words], session: Session) -> dict[int, Words]:
        """Masked vectors of the hospitals that are there and whose session is set up; vectors stay as they are."""
        masked = {}
        for hospital in session.sharers:
            if self.gone(hospital, UPLOAD):
                continue
            vector = vectors[hospital].copy()
            with suppress(ProtocolError):
                self.clients[hospital].mask(round, vector)
                masked[hospital] = vector
        return masked

    def open(
        self, session: Session, round: int, masked: Mapping[int, Words], shards: int = 1
    ) -> tuple[Unmasking, Words]:
        """The opened sum of masked vectors, by so many shards."""
        ring = self.terms.encoding.ring_bits
        sums = [ShardSum(start, stop, ring) for start, stop in slices(self.terms.length, shards)]
        for vector in masked.values():
            for shard in sums:
                shard.add(pack(vector[shard.start : shard.start + len(shard.total)], ring))
        unmasking = self.conductor.open(session, round, masked)
        return unmasking, np.concatenate([shard.open(unmasking.masks) for shard in sums])

    def vectors(self, seed: int = 0) -> dict[int, Words]:
        """A random vector of integers below 2^ring_bits for each hospital."""
        generator = np.random.default_rng(seed)
        top = 2**self.terms.encoding.ring_bits
        return {
            hospital: generator.integers(0, top, self.terms.length, dtype=np.uint32) for hospital in self.hospitals
        }

    def total(self, vectors: Mapping[int, Words], survivors: Iterable[int]) -> list[int]:
        """The sum of survivors' vectors in the ring, in plain Python integers."""
        modulus = 2**self.terms.encoding.ring_bits
        return [sum(column) % modulus for column in zip(*(vectors[h].tolist() for h in survivors), strict=True)]


def advertise_all(parties: Parties, rounds: int = 1, first_round: int = 1, attempt: int = 1) -> ShareStage:
    """An honest session up to the hospitals' keys."""
    opening = open_session(parties.terms, parties.hospitals, first_round, rounds, attempt)
    stage = AdvertiseStage(parties.terms, opening, parties.directory)
    for client in parties.clients.values():
        stage.add(client.advertise(opening))
    return stage.close()


def share_all(parties: Parties, stage: ShareStage) -> Session:
    """On to the hospitals' sealed shares."""
    for hospital, client in parties.clients.items():
        stage.add(hospital, client.share_keys(stage.book(hospital)))
    return stage.close()


def set_up(parties: Parties, rounds: int = 1, first_round: int = 1, attempt: int = 1) -> Session:
    """On to hospitals that are ready."""
    session = share_all(parties, advertise_all(parties, rounds, first_round, attempt))
    for hospital, client in parties.clients.items():
        client.receive(session.deal(hospital))
    return session


def mask_all(parties: Parties, round: int = 1, without: Iterable[int] = ()) -> dict[int, Words]:
    """On to masked vectors of zeros, but for some hospitals."""
    masked = {}
    for hospital in sorted(set(parties.hospitals) - set(without)):
        masked[hospital] = np.zeros(parties.terms.length, dtype=np.uint32)
        parties.clients[hospital].mask(round, masked[hospital])
    return masked


def sign_all(parties: Parties, session: Session, uploaded: Iterable[int], round: int = 1) -> UnmaskStage:
    """On to the signatures under the list of survivors."""
    stage = session.survivors(round, uploaded)
    for hospital in stage.listed.survivors:
        stage.add(parties.clients[hospital].sign(stage.listed))
    return stage.close()


@dataclass
class Opened:
    """What a server, and hospitals that collude with it, can rebuild from a transcript.

    Args:
        terms: of the experiment. session: whose advertisements are known. seeds, keys: shares by (owner, round)
            and holder. secrets: mask key pairs that are known, by public key.
    """

    terms: Terms
    session: Session
    seeds: dict[tuple[int, int], dict[int, int]]
    keys: dict[tuple[int, int], dict[int, int]]
    secrets: dict[bytes, KeyPair]

    @staticmethod
    def from_transcript(terms: Terms, session: Session, transcript: Iterable[Exchange]) -> Opened:
        """Count the shares in all answers to a session, and combine those that suffice."""
        seeds: dict[tuple[int, int], dict[int, int]] = {}
        keys: dict[tuple[int, int], dict[int, int]] = {}
        for exchange in transcript:
            answer = exchange.answer
            if isinstance(answer, Answer) and answer.session == session.opening.session:
                for owner, share in answer.seeds:
                    seeds.setdefault((owner, answer.round), {})[answer.hospital] = share
                for owner, share in answer.keys:
                    keys.setdefault((owner, answer.round), {})[answer.hospital] = share
        opened = Opened(terms, session, seeds, keys, {})
        for shares in keys.values():
            secret = opened.rebuild(shares)
            if secret is not None:
                opened.learn(KeyPair(secret))
        return opened

    def learn(self, *pairs: KeyPair) -> None:
        """Mask keys known from elsewhere, such as those of hospitals that collude."""
        self.secrets |= {pair.public: pair for pair in pairs}

    def rebuild(self, shares: Mapping[int, int]) -> bytes | None:
        """A secret from its shares, if there are enough."""
        return combine(shares) if len(shares) >= self.terms.parameters.threshold else None

    def most_of_the_scarcer(self) -> int:
        """The greatest number of shares, over (hospital, round), of which both of its secrets have so many."""
        both = {*self.seeds, *self.keys}
        return max((min(len(self.seeds.get(one, ())), len(self.keys.get(one, ()))) for one in both), default=0)

    def peel(self, vector: Words, owner: int, round: int, neighbours: Sequence[int] | None = None) -> Words:
        """A masked vector without all the masks that are known.

        Args:
            neighbours: with whom the owner masked; by default, all of its neighbours that shared.
        """
        session = self.session
        context = Context(session.opening.session, round, session.opening.attempt)
        place = round - session.opening.first_round
        masks = []
        seed = self.rebuild(self.seeds.get((owner, round), {}))
        if seed is not None:
            masks.append(Mask(context.self_key(seed, owner)))
        if neighbours is None:
            neighbours = [other for other in session.graph.neighbours(owner) if other in session.sharers]
        for other in neighbours:
            ours, theirs = (session.advertisements[number].mask_keys[place] for number in (owner, other))
            pair = self.secrets.get(ours) or self.secrets.get(theirs)
            if pair is not None:
                agreed = pair.agree(theirs if pair.public == ours else ours)
                masks.append(pair_mask(context.pair_key(agreed, owner, other), owner, other))
        peeled = vector.copy()
        apply_masks(peeled, [mask.opposite() for mask in masks])
        return peeled
