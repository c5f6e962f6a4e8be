"""A hospital's part: one small class for each state, and the client that holds the present one.

A state's method takes a message of the server, checks it against what this hospital saw itself, and gives the
next state and what the hospital says. A refusal (`ProtocolError`) changes nothing and tells nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from lightning_fed.secagg.answers import AnsweredRounds
from lightning_fed.secagg.errors import ProtocolError
from lightning_fed.secagg.graph import Graph
from lightning_fed.secagg.keys import SECRET_BYTES, Directory, Identity, KeyPair, seal, unseal
from lightning_fed.secagg.masks import Context, Mask, Words, apply_masks, pair_mask
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
from lightning_fed.secagg.shamir import SHARE_BYTES, split

SHARES_OF_A_ROUND = 2  # of the self-mask seed and of the mask key
NONCE_BYTES = 16
MOST_OPENINGS = 3  # of one round: a server cannot start anew until it likes the ring


def refuse_unless(condition: bool, reason: str) -> None:
    """Raise `ProtocolError` with the reason unless the condition holds."""
    if not condition:
        raise ProtocolError(reason)


@dataclass(frozen=True)
class Self:
    """What a hospital has before any session.

    Args:
        hospital: its number. terms: from the experiment. identity: its signing key.
        directory: everybody's public signing keys, pinned. answered: the rounds that it opened.
    """

    hospital: int
    terms: Terms
    identity: Identity
    directory: Directory
    answered: AnsweredRounds


@dataclass(frozen=True)
class RoundSecrets:
    """A hospital's own secrets of one round."""

    mask_key: KeyPair
    seed: bytes = field(repr=False)

    @staticmethod
    def fresh() -> RoundSecrets:
        """From the operating system."""
        return RoundSecrets(KeyPair(), os.urandom(SECRET_BYTES))


class Enrolled:
    """Before a session."""

    def __init__(self, me: Self) -> None:
        self.me = me

    def advertise(self, opening: Opening) -> tuple[Advertised, Advertisement]:
        """Draw the session's keys and sign them.

        Raises:
            ProtocolError: the server's terms are not this hospital's, or a round was opened before.
        """
        me, terms = self.me, self.me.terms
        parameters = terms.parameters
        rounds = range(opening.first_round, opening.first_round + opening.rounds)
        refuse_unless(me.hospital in opening.cohort, "this hospital is not in the cohort that it is asked for")
        refuse_unless(
            opening.cohort == tuple(sorted(set(opening.cohort)))
            and all(hospital in me.directory for hospital in opening.cohort),
            "the cohort holds a hospital twice or one without a pinned identity",
        )
        refuse_unless(
            len(opening.cohort) <= min(parameters.hospitals, terms.encoding.hospitals),
            "the cohort is larger than degree, threshold and ring are for",
        )
        refuse_unless(opening.threshold >= parameters.threshold, "the threshold is below the rule's")
        refuse_unless(
            opening.degree == parameters.degree and opening.threshold == parameters.threshold,
            "degree and threshold are not those of the experiment",
        )
        refuse_unless(
            1 <= opening.rounds <= terms.rounds_per_setup and len(opening.session) >= NONCE_BYTES,
            "the session is for more rounds than a set-up serves, or has no proper name",
        )
        refuse_unless(
            rounds.start >= 1 and (terms.rounds is None or rounds.stop <= terms.rounds + 1),
            "the session is for rounds that the experiment does not have",
        )
        for round in rounds:
            me.answered.refuse(round)
        sealing = KeyPair()
        secrets = {round: RoundSecrets.fresh() for round in rounds}
        unsigned = Advertisement(
            hospital=me.hospital,
            session=opening.session,
            attempt=opening.attempt,
            nonce=os.urandom(NONCE_BYTES),
            sealing_key=sealing.public,
            mask_keys=tuple(secret.mask_key.public for secret in secrets.values()),
            commitments=tuple(
                seed_commitment(opening.session, round, me.hospital, secret.seed)
                for round, secret in secrets.items()
            ),
        )
        advertisement = replace(unsigned, signature=me.identity.sign(unsigned.statement))
        return Advertised(me, opening, sealing, secrets, advertisement), advertisement


class Advertised:
    """Its keys are out; it waits for its neighbours'."""

    def __init__(
        self,
        me: Self,
        opening: Opening,
        sealing: KeyPair,
        secrets: Mapping[int, RoundSecrets],
        advertisement: Advertisement,
    ) -> None:
        self.me, self.opening, self.sealing = me, opening, sealing
        self.secrets, self.advertisement = secrets, advertisement

    def share_keys(self, book: KeyBook) -> tuple[Shared, tuple[SealedShares, ...]]:
        """Check the neighbours' keys and seal a share of each of the session's secrets for each neighbour.

        Raises:
            ProtocolError: keys that their owner did not sign, or too few hospitals.
        """
        opening, me = self.opening, self.me
        refuse_unless(book.session == opening.session, "the keys are of another session")
        statements = dict(book.statements)
        refuse_unless(
            [hospital for hospital, _ in book.statements] == sorted(statements)
            and statements.keys() <= set(opening.cohort),
            "the list of keys names a hospital twice or one outside the cohort",
        )
        refuse_unless(
            statements.get(me.hospital) == self.advertisement.statement, "this hospital's own keys were changed"
        )
        refuse_unless(len(statements) >= me.terms.least_keys, "too few hospitals advertised keys")
        keys = keys_digest(opening.session, book.statements)
        graph = Graph(statements, me.terms.parameters, keys)
        neighbours = {other.hospital: other for other in book.neighbours}
        refuse_unless(
            tuple(sorted(neighbours)) == graph.neighbours(me.hospital) and len(neighbours) == len(book.neighbours),
            "the keys are not those of this hospital's neighbours",
        )
        for other in neighbours.values():
            self._check(other, statements)
        shares = self._split(graph)
        sealed = tuple(
            SealedShares(
                opening.session,
                me.hospital,
                other.hospital,
                self._seal(other, shares[other.hospital]),
            )
            for other in neighbours.values()
        )
        return Shared(self, keys, graph, neighbours, shares.get(me.hospital, ())), sealed

    def _check(self, other: Advertisement, statements: Mapping[int, bytes]) -> None:
        rounds = self.opening.rounds
        refuse_unless(
            other.session == self.opening.session
            and other.attempt == self.opening.attempt
            and other.statement == statements[other.hospital]
            and len(other.mask_keys) == len(other.commitments) == rounds,
            f"the keys of hospital {other.hospital} are not for this session",
        )
        refuse_unless(
            self.me.directory.verify(other.hospital, other.signature, other.statement),
            f"the keys of hospital {other.hospital} are not signed by its pinned identity",
        )

    def _split(self, graph: Graph) -> dict[int, tuple[int, ...]]:
        """By holder, shares of (seed, mask key) of each round in turn."""
        holders = graph.holders(self.me.hospital)
        threshold = self.me.terms.parameters.threshold
        refuse_unless(threshold <= len(holders), "fewer hospitals hold shares than open a secret")
        pieces = [
            split(secret, threshold, holders)
            for secrets in self.secrets.values()
            for secret in (secrets.seed, secrets.mask_key.secret)
        ]
        return {holder: tuple(piece[holder] for piece in pieces) for holder in holders}

    def _seal(self, other: Advertisement, shares: tuple[int, ...]) -> bytes:
        message = b"".join(share.to_bytes(SHARE_BYTES, "big") for share in shares)
        session = self.opening.session
        info = self.context(self.me.hospital, other.hospital)
        return seal(self.sealing.agree(other.sealing_key), session, info, message)

    def context(self, sender: int, receiver: int) -> bytes:
        """The associated data of a sealed message of this session."""
        opening = self.opening
        return SealedShares.context(
            opening.session, opening.attempt, opening.first_round, opening.rounds, sender, receiver
        )


class Shared:
    """Its shares are on their way; it waits for its neighbours'."""

    def __init__(
        self,
        before: Advertised,
        keys: bytes,
        graph: Graph,
        neighbours: Mapping[int, Advertisement],
        own_shares: tuple[int, ...],
    ) -> None:
        self.before, self.keys, self.graph, self.neighbours = before, keys, graph, neighbours
        self.own_shares = own_shares

    def receive(self, deal: Deal) -> Ready:
        """Open the neighbours' shares.

        Raises:
            ProtocolError: a share that is missing, damaged, not for this hospital, or too few of them.
        """
        me, opening = self.before.me, self.before.opening
        refuse_unless(deal.session == opening.session, "the shares are of another session")
        refuse_unless(
            deal.sharers == tuple(sorted(set(deal.sharers)))
            and set(deal.sharers) <= set(self.graph.hospitals)
            and me.hospital in deal.sharers,
            "the list of hospitals that shared is not one of those that advertised",
        )
        refuse_unless(len(deal.sharers) >= me.terms.least_survivors, "too few hospitals shared their secrets")
        holders = set(self.graph.holders(me.hospital)) & set(deal.sharers)
        threshold = me.terms.parameters.threshold
        refuse_unless(  # else the server could leave out all those whose masks would protect this hospital
            len(holders) >= threshold, f"only {len(holders)} neighbours shared their secrets, not {threshold}"
        )
        senders = tuple(message.sender for message in deal.sealed)
        expected = tuple(other for other in deal.sharers if other in self.neighbours)
        refuse_unless(
            tuple(sorted(senders)) == expected and all(m.receiver == me.hospital for m in deal.sealed),
            "the shares are not one of each neighbour that shared",
        )
        held = {message.sender: self._open(message) for message in deal.sealed}
        if self.own_shares:
            held[me.hospital] = self.own_shares
        rounds = range(opening.first_round, opening.first_round + opening.rounds)
        return Ready(
            me=me,
            opening=opening,
            keys=self.keys,
            sharers=deal.sharers,
            neighbours={other: self.neighbours[other] for other in expected},
            graph=self.graph,
            secrets=dict(self.before.secrets),
            held={
                round: {
                    owner: (shares[SHARES_OF_A_ROUND * place], shares[SHARES_OF_A_ROUND * place + 1])
                    for owner, shares in held.items()
                }
                for place, round in enumerate(rounds)
            },
        )

    def _open(self, message: SealedShares) -> tuple[int, ...]:
        before, sender = self.before, self.neighbours[message.sender]
        refuse_unless(message.session == before.opening.session, "a sealed message is of another session")
        secret = before.sealing.agree(sender.sealing_key)
        info = before.context(message.sender, message.receiver)
        try:
            opened = unseal(secret, before.opening.session, info, message.sealed)
        except ProtocolError as error:
            raise ProtocolError(f"from hospital {message.sender}: {error}") from error
        expected = SHARE_BYTES * SHARES_OF_A_ROUND * before.opening.rounds
        refuse_unless(len(opened) == expected, f"hospital {message.sender} sent too few or too many shares")
        return tuple(
            int.from_bytes(opened[start : start + SHARE_BYTES], "big")
            for start in range(0, len(opened), SHARE_BYTES)
        )


@dataclass
class Ready:
    """The session is set up; each of its rounds can be masked once, in ascending order.

    Args:
        me, opening, keys, sharers, graph: of the session. neighbours: advertisements of those that shared.
        secrets: own, by round not yet masked. held: shares of others by round not yet answered, (seed, mask key).
    """

    me: Self
    opening: Opening
    keys: bytes
    sharers: tuple[int, ...]
    neighbours: Mapping[int, Advertisement]
    graph: Graph
    secrets: dict[int, RoundSecrets] = field(repr=False)
    held: dict[int, dict[int, tuple[int, int]]] = field(repr=False)

    def mask(self, round: int, vector: Words) -> Uploaded:
        """Add this hospital's masks of a round to its vector, in place.

        Args:
            vector: uint32 (length,), modulo 2^32; what is sent of it are the ring's lower bits.

        Raises:
            ProtocolError: the round was masked before, is over, or is not of this session.
        """
        refuse_unless(round in self.secrets, f"round {round} is not of this session, or was masked before")
        refuse_unless(len(vector) == self.me.terms.length, "the vector is not as long as agreed")
        self.me.answered.refuse(round)
        secrets = self.secrets.pop(round)
        for earlier in [other for other in self.secrets if other < round]:
            del self.secrets[earlier]  # those rounds went on without this hospital
        apply_masks(vector, self._masks(round, secrets))
        held = self.held.pop(round)
        for earlier in [other for other in self.held if other < round]:
            del self.held[earlier]
        return Uploaded(self, round, held)

    def _masks(self, round: int, secrets: RoundSecrets) -> list[Mask]:
        me = self.me.hospital
        context = Context(self.opening.session, round, self.opening.attempt)
        place = round - self.opening.first_round
        pairs = [
            pair_mask(context.pair_key(secrets.mask_key.agree(other.mask_keys[place]), me, number), me, number)
            for number, other in self.neighbours.items()
        ]
        return [Mask(context.self_key(secrets.seed, me)), *pairs]


class Uploaded:
    """Its masked vector is out; it waits for the list of survivors."""

    def __init__(self, session: Ready, round: int, held: Mapping[int, tuple[int, int]]) -> None:
        self.session, self.round, self.held = session, round, held

    def sign(self, survivors: Survivors) -> tuple[Listed, Signed]:
        """Sign the list of survivors, if it fits what this hospital saw.

        Raises:
            ProtocolError: a list that is not of this round, leaves this hospital out, names a stranger, or is
                too short.
        """
        session = self.session
        me, opening = session.me, session.opening
        refuse_unless(
            (survivors.session, survivors.round, survivors.attempt)
            == (opening.session, self.round, opening.attempt),
            "the list of survivors is of another session or round",
        )
        refuse_unless(
            survivors.uploaders == session.sharers, "the uploaders are not the hospitals that shared their secrets"
        )
        refuse_unless(
            survivors.survivors == tuple(sorted(set(survivors.survivors)))
            and set(survivors.survivors) <= set(survivors.uploaders),
            "a survivor is named twice or did not share its secrets",
        )
        refuse_unless(me.hospital in survivors.survivors, "this hospital uploaded and is not among the survivors")
        refuse_unless(
            len(survivors.survivors) >= me.terms.least_survivors,
            f"only {len(survivors.survivors)} survivors; fewer than {me.terms.least_survivors} are not opened",
        )
        statement = survivors.statement(me.terms, session.keys)
        signed = Signed(me.hospital, opening.session, self.round, opening.attempt, me.identity.sign(statement))
        return Listed(self, survivors, statement), signed


class Listed:
    """It signed a list of survivors; it waits for the request to unmask them."""

    def __init__(self, before: Uploaded, survivors: Survivors, statement: bytes) -> None:
        self.before, self.survivors, self.statement = before, survivors, statement

    def unmask(self, request: UnmaskRequest) -> Answer:
        """Give shares, once: of survivors' own masks, and of the mask keys of those that dropped out.

        Raises:
            ProtocolError: a list other than the one signed, too few signatures under it, a hospital called both
                alive and dead, a share of a stranger or of one whose state this hospital sees otherwise.
            OSError: the note that this round is opened cannot be written; nothing is answered.
        """
        session = self.before.session
        me, opening = session.me, session.opening
        refuse_unless(request.survivors == self.survivors, "the survivors are not those that were signed")
        self._check_signatures(request)
        refuse_unless(not set(request.seeds_of) & set(request.keys_of), "a hospital is called both alive and dead")
        alive = set(self.survivors.survivors)
        dead = set(self.survivors.uploaders) - alive
        held = self.before.held
        refuse_unless(
            set(request.seeds_of) | set(request.keys_of) <= held.keys(),
            "a share outside this hospital's neighbours",
        )
        refuse_unless(
            set(request.seeds_of) <= alive and set(request.keys_of) <= dead,
            "a seed of a hospital that dropped out, or a mask key of one that is alive",
        )
        me.answered.add(self.before.round)
        return Answer(
            hospital=me.hospital,
            session=opening.session,
            round=self.before.round,
            attempt=opening.attempt,
            seeds=tuple((owner, held[owner][0]) for owner in request.seeds_of),
            keys=tuple((owner, held[owner][1]) for owner in request.keys_of),
        )

    def _check_signatures(self, request: UnmaskRequest) -> None:
        session = self.before.session
        holders = session.graph.holders(session.me.hospital)  # two lists never find `threshold` of them each
        nearby = set(holders) & set(self.survivors.survivors)
        signers = {
            signed.hospital
            for signed in request.signatures
            if signed.hospital in nearby
            and session.me.directory.verify(signed.hospital, signed.signature, self.statement)
        }
        threshold = session.me.terms.parameters.threshold
        refuse_unless(
            len(signers) >= threshold,
            f"only {len(signers)} neighbours signed this list of survivors, not {threshold}",
        )


State = TypeVar("State")


class Client:
    """A hospital's SecAgg+ client: holds the session's state and the round's, and takes each message once.

    Args:
        me: what the hospital has before any session.
    """

    def __init__(self, me: Self) -> None:
        self.me = me
        self._session: Enrolled | Advertised | Shared | Ready = Enrolled(me)
        self._round: Uploaded | Listed | None = None
        self._seen: set[bytes] = set()
        self._openings: Counter[int] = Counter()

    def advertise(self, opening: Opening) -> Advertisement:
        """Stage 1. A new session ends the one before it."""
        refuse_unless(opening.session not in self._seen, "the session was opened before")
        refuse_unless(
            self._openings[opening.first_round] < MOST_OPENINGS,
            f"round {opening.first_round} was begun {MOST_OPENINGS} times already",
        )
        state, advertisement = Enrolled(self.me).advertise(opening)
        self._seen.add(opening.session)
        self._openings[opening.first_round] += 1
        self._session, self._round = state, None
        return advertisement

    def share_keys(self, book: KeyBook) -> tuple[SealedShares, ...]:
        """Stage 2."""
        self._session, sealed = self._in(self._session, Advertised).share_keys(book)
        return sealed

    def receive(self, deal: Deal) -> None:
        """Stage 2, the neighbours' side: after it the session's rounds can be masked."""
        self._session = self._in(self._session, Shared).receive(deal)

    def mask(self, round: int, vector: Words) -> None:
        """Stage 3: mask a vector in place; see `Ready.mask`."""
        self._round = self._in(self._session, Ready).mask(round, vector)

    def sign(self, survivors: Survivors) -> Signed:
        """Stage 4."""
        self._round, signed = self._in(self._round, Uploaded).sign(survivors)
        return signed

    def unmask(self, request: UnmaskRequest) -> Answer:
        """Stage 5; after it the round is over for this hospital."""
        answer = self._in(self._round, Listed).unmask(request)
        self._round = None
        return answer

    @staticmethod
    def _in(state: object, kind: type[State]) -> State:
        """The present state, if it is the one that a message is for."""
        if not isinstance(state, kind):
            now = "no round" if state is None else type(state).__name__.lower()
            raise ProtocolError(f"a message for the stage '{kind.__name__.lower()}' came in the stage '{now}'")
        return state

    def __repr__(self) -> str:
        return f"Client(hospital={self.me.hospital})"
