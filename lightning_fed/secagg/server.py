"""The server's part: one small class for each state. It sees keys, sealed messages and shares, never a vector.

Masked vectors go from hospitals to the aggregator's shards; what this part gives those shards is which masks to
take from the sum. `Unmasking.masks` is all that it learns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from math import comb
from random import SystemRandom

from lightning_fed.secagg.errors import ProtocolError, RoundAbortedError
from lightning_fed.secagg.graph import Graph
from lightning_fed.secagg.keys import Directory, KeyPair
from lightning_fed.secagg.masks import Context, Mask, pair_mask
from lightning_fed.secagg.messages import (
    Advertisement,
    Answer,
    Deal,
    KeyBook,
    Opening,
    SealedShares,
    Signed,
    Survivors,
    Terms,
    UnmaskRequest,
    keys_digest,
    seed_commitment,
)
from lightning_fed.secagg.shamir import PRIME, combine, disagree

MOST_TRIES = 2000  # sets of shares that are tried where some of them are wrong


def open_session(terms: Terms, cohort: Iterable[int], first_round: int, rounds: int, attempt: int = 1) -> Opening:
    """A session with a fresh name.

    Args:
        cohort: the hospitals to ask. first_round, rounds: the rounds that it serves.
    """
    return Opening(
        session=os.urandom(32),
        cohort=tuple(sorted(cohort)),
        first_round=first_round,
        rounds=rounds,
        attempt=attempt,
        degree=terms.parameters.degree,
        threshold=terms.parameters.threshold,
    )


class AdvertiseStage:
    """Collects advertisements.

    Args:
        terms: of the experiment. opening: the session. directory: pinned identities; what they did not sign is
            left out, as every neighbour would refuse it.
    """

    def __init__(self, terms: Terms, opening: Opening, directory: Directory) -> None:
        self.terms, self.opening, self.directory = terms, opening, directory
        self._advertisements: dict[int, Advertisement] = {}

    def add(self, advertisement: Advertisement) -> None:
        """Take a hospital's keys.

        Raises:
            ProtocolError: they are not that hospital's, or not of this session.
        """
        opening, hospital = self.opening, advertisement.hospital
        fits = (
            advertisement.session == opening.session
            and advertisement.attempt == opening.attempt
            and hospital in opening.cohort
            and hospital not in self._advertisements
            and len(advertisement.mask_keys) == len(advertisement.commitments) == opening.rounds
        )
        if not fits or not self.directory.verify(hospital, advertisement.signature, advertisement.statement):
            raise ProtocolError(f"the keys of hospital {hospital} are not its own or not of this session")
        for key in (advertisement.sealing_key, *advertisement.mask_keys):
            KeyPair().agree(key)  # a key of low order would stop all of its neighbours later
        self._advertisements[hospital] = advertisement

    def close(self) -> ShareStage:
        """Draw the graph among those that advertised.

        Raises:
            RoundAbortedError: too few did.
        """
        if len(self._advertisements) < self.terms.least_keys:
            raise RoundAbortedError(
                f"{len(self._advertisements)} hospitals advertised keys; {self.terms.least_keys} are needed"
            )
        return ShareStage(self.terms, self.opening, dict(sorted(self._advertisements.items())))


class ShareStage:
    """Hands out the keys and collects sealed shares."""

    def __init__(self, terms: Terms, opening: Opening, advertisements: Mapping[int, Advertisement]) -> None:
        self.terms, self.opening, self.advertisements = terms, opening, advertisements
        self.statements = tuple((hospital, sent.statement) for hospital, sent in advertisements.items())
        self.keys = keys_digest(opening.session, self.statements)
        self.graph = Graph(advertisements, terms.parameters, self.keys)
        self._sealed: dict[int, tuple[SealedShares, ...]] = {}

    def book(self, hospital: int) -> KeyBook:
        """What one hospital is told of the others' keys."""
        neighbours = tuple(self.advertisements[other] for other in self.graph.neighbours(hospital))
        return KeyBook(self.opening.session, self.statements, neighbours)

    def add(self, hospital: int, sealed: tuple[SealedShares, ...]) -> None:
        """Take a hospital's sealed shares.

        Raises:
            ProtocolError: they are not one for each neighbour.
        """
        neighbours = self.graph.neighbours(hospital)
        if tuple(sorted(message.receiver for message in sealed)) != neighbours or any(
            message.sender != hospital or message.session != self.opening.session for message in sealed
        ):
            raise ProtocolError(f"the shares of hospital {hospital} are not one for each of its neighbours")
        self._sealed[hospital] = sealed

    def close(self) -> Session:
        """Who shared is who takes part.

        Raises:
            RoundAbortedError: too few did.
        """
        if len(self._sealed) < self.terms.least_survivors:
            raise RoundAbortedError(
                f"{len(self._sealed)} hospitals shared their secrets; {self.terms.least_survivors} are needed"
            )
        return Session(self, dict(sorted(self._sealed.items())))


class Session:
    """A set-up that is done; each of its rounds is opened by its own `Round`."""

    def __init__(self, before: ShareStage, sealed: Mapping[int, tuple[SealedShares, ...]]) -> None:
        self.terms, self.opening, self.graph = before.terms, before.opening, before.graph
        self.advertisements, self.keys = before.advertisements, before.keys
        self.sharers = tuple(sealed)
        self._boxes: dict[int, list[SealedShares]] = {hospital: [] for hospital in sealed}
        for messages in sealed.values():
            for message in messages:
                if message.receiver in self._boxes:
                    self._boxes[message.receiver].append(message)

    def deal(self, hospital: int) -> Deal:
        """The sealed shares for one of the hospitals that shared."""
        return Deal(self.opening.session, self.sharers, tuple(self._boxes[hospital]))

    def serves(self, round: int) -> bool:
        """Whether a round is one of this session's."""
        return 0 <= round - self.opening.first_round < self.opening.rounds

    def survivors(self, round: int, uploaded: Iterable[int]) -> SignStage:
        """After the masked vectors: who is in the sum.

        Raises:
            RoundAbortedError: too few hospitals.
        """
        alive = tuple(sorted(set(uploaded) & set(self.sharers)))
        if len(alive) < self.terms.least_survivors:
            raise RoundAbortedError(
                f"{len(alive)} hospitals sent their vectors; {self.terms.least_survivors} are needed"
            )
        listed = Survivors(self.opening.session, round, self.opening.attempt, self.sharers, alive)
        return SignStage(self, listed)


class SignStage:
    """Collects the survivors' signatures under the list of survivors."""

    def __init__(self, session: Session, listed: Survivors) -> None:
        self.session, self.listed = session, listed
        self._signed: dict[int, Signed] = {}

    def add(self, signed: Signed) -> None:
        """Take a survivor's signature; hospitals check it, not the server.

        Raises:
            ProtocolError: it is of nobody in the list or of another list.
        """
        listed = self.listed
        if signed.hospital not in listed.survivors or (signed.session, signed.round, signed.attempt) != (
            listed.session,
            listed.round,
            listed.attempt,
        ):
            raise ProtocolError(f"hospital {signed.hospital} signed something else than this list of survivors")
        self._signed[signed.hospital] = signed

    def close(self) -> UnmaskStage:
        """Ask those that signed.

        Raises:
            RoundAbortedError: too few did.
        """
        threshold = self.session.terms.parameters.threshold
        if len(self._signed) < threshold:
            raise RoundAbortedError(f"{len(self._signed)} hospitals signed the survivors; {threshold} are needed")
        return UnmaskStage(self.session, self.listed, dict(sorted(self._signed.items())))


class UnmaskStage:
    """Asks for shares, collects them, and finds the masks that are left in the sum."""

    def __init__(self, session: Session, listed: Survivors, signed: Mapping[int, Signed]) -> None:
        self.session, self.listed, self.signed = session, listed, signed
        self.asked = tuple(signed)
        self._alive = set(listed.survivors)
        self._seeds: dict[int, dict[int, int]] = {hospital: {} for hospital in listed.survivors}
        self._keys: dict[int, dict[int, int]] = {
            hospital: {} for hospital in listed.uploaders if hospital not in self._alive
        }
        self._answered: set[int] = set()
        self.wrong: set[int] = set()
        """Hospitals that gave a wrong share."""

    def request(self, hospital: int) -> UnmaskRequest:
        """What one of those that signed is asked."""
        graph = self.session.graph
        nearby = {*graph.neighbours(hospital), hospital}
        held = [owner for owner in graph.holders(hospital) if owner in self._seeds or owner in self._keys]
        return UnmaskRequest(
            survivors=self.listed,
            signatures=tuple(signed for signer, signed in self.signed.items() if signer in nearby),
            seeds_of=tuple(owner for owner in held if owner in self._alive),
            keys_of=tuple(owner for owner in held if owner not in self._alive),
        )

    def add(self, answer: Answer) -> None:
        """Take a hospital's shares.

        Raises:
            ProtocolError: they are not those that it was asked for.
        """
        request = self.request(answer.hospital) if answer.hospital in self.signed else None
        listed = self.listed
        if (
            request is None
            or answer.hospital in self._answered
            or (answer.session, answer.round, answer.attempt) != (listed.session, listed.round, listed.attempt)
            or tuple(owner for owner, _ in answer.seeds) != request.seeds_of
            or tuple(owner for owner, _ in answer.keys) != request.keys_of
            or not all(isinstance(share, int) and 0 <= share < PRIME for _, share in (*answer.seeds, *answer.keys))
        ):
            raise ProtocolError(f"hospital {answer.hospital} answered something else than it was asked")
        self._answered.add(answer.hospital)
        for owner, share in answer.seeds:
            self._seeds[owner][answer.hospital] = share
        for owner, share in answer.keys:
            self._keys[owner][answer.hospital] = share

    def close(self) -> Unmasking:
        """The masks to take from the sum.

        Raises:
            RoundAbortedError: too few shares came together, or those that did give no secret that was promised.
        """
        session, listed = self.session, self.listed
        context = Context(listed.session, listed.round, listed.attempt)
        masks = [Mask(context.self_key(self._seed(owner), owner), negative=True) for owner in self._seeds]
        for owner in self._keys:
            neighbours = [other for other in session.graph.neighbours(owner) if other in self._alive]
            if not neighbours:
                continue
            pair = self._mask_key(owner)
            for other in neighbours:
                agreed = pair.agree(session.advertisements[other].mask_keys[self._place])
                masks.append(pair_mask(context.pair_key(agreed, other, owner), other, owner).opposite())
        return Unmasking(listed.survivors, tuple(sorted(self._keys)), tuple(masks))

    def _seed(self, owner: int) -> bytes:
        listed = self.listed
        promised = self.session.advertisements[owner].commitments[self._place]

        def is_promised(seed: bytes) -> bool:
            return seed_commitment(listed.session, listed.round, owner, seed) == promised

        return self._secret(owner, self._seeds[owner], "self-mask seed", is_promised)

    def _mask_key(self, owner: int) -> KeyPair:
        promised = self.session.advertisements[owner].mask_keys[self._place]

        def is_promised(secret: bytes) -> bool:
            return KeyPair(secret).public == promised

        return KeyPair(self._secret(owner, self._keys[owner], "mask key", is_promised))

    @property
    def _place(self) -> int:
        return self.listed.round - self.session.opening.first_round

    def _secret(
        self, owner: int, shares: Mapping[int, int], name: str, is_promised: Callable[[bytes], bool]
    ) -> bytes:
        """What enough shares give, checked against what its owner promised.

        The same holders come first for all owners, whose Lagrange weights are kept. Holders that gave a wrong
        share of one secret come last for the next.
        """
        threshold = self.session.terms.parameters.threshold
        if len(shares) < threshold:
            raise RoundAbortedError(
                f"too many dropped out: {len(shares)} shares of hospital {owner}'s {name}, {threshold} are needed"
            )
        holders = sorted(shares)
        trusted = [holder for holder in holders if holder not in self.wrong]
        pools = [trusted, holders] if threshold <= len(trusted) < len(holders) else [holders]
        for tries, chosen in enumerate(chain.from_iterable(sets_to_try(pool, threshold) for pool in pools)):
            secret = combine({holder: shares[holder] for holder in chosen})
            if secret is not None and is_promised(secret):
                wrong = disagree(shares, chosen) if tries else []
                if 2 * len(wrong) <= len(shares) - threshold:  # else liars in league could shift it on to others
                    self.wrong.update(wrong)
                return secret
        raise RoundAbortedError(f"the shares of hospital {owner}'s {name} do not give what it promised")


def sets_to_try(holders: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    """Sets of holders whose shares may be right: all sets where those are few, else the first and then drawn ones.

    A holder that lies spoils a part of the drawn sets, wherever it stands in the order.
    """
    if comb(len(holders), size) <= MOST_TRIES:
        yield from combinations(holders, size)
        return
    yield tuple(holders[:size])
    draw = SystemRandom()
    for _ in range(MOST_TRIES):
        yield tuple(sorted(draw.sample(holders, size)))


@dataclass(frozen=True)
class Unmasking:
    """What opens the sum.

    Args:
        survivors: whose vectors are in it. dropped: hospitals that shared and did not upload.
        masks: to add to the sum, signs turned already.
    """

    survivors: tuple[int, ...]
    dropped: tuple[int, ...]
    masks: tuple[Mask, ...]
