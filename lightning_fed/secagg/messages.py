"""What the parties say to each other: frozen, small, and nothing of it a vector or a weight.

A message from a hospital to its neighbours goes through the server, which is why each of those is signed or
sealed. Fields that would open a mask are kept out of every `repr`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from lightning_fed.secagg.integers import IntegerSum
from lightning_fed.secagg.parameters import SMALLEST_COHORT, Parameters
from lightning_fed.secagg.quantise import Encoding


def digest(*parts: bytes | str | int) -> bytes:
    """SHA-256 over parts, each led by its length, so that no two lists of parts give the same bytes."""
    state = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        state.update(len(data).to_bytes(8, "big") + data)
    return state.digest()


@dataclass(frozen=True)
class Terms:
    """What every party knows from the experiment and takes from nobody.

    Args:
        parameters: degree and threshold. encoding: of the vectors. length: integers of a vector.
        min_survivors: the fewest hospitals whose sum may be opened; never fewer than the threshold or three.
        rounds_per_setup: rounds that one set-up serves.
        least_advertised: the fewest hospitals among whom the graph is drawn. In a ring of fewer than the rule
            counted on, corrupt hospitals could be most of somebody's neighbours.
        rounds: of the whole run, None for any number.
    """

    parameters: Parameters
    encoding: Encoding | IntegerSum
    length: int
    min_survivors: int
    rounds_per_setup: int = 1
    least_advertised: int = 0
    rounds: int | None = None

    @property
    def least_survivors(self) -> int:
        """The fewest hospitals whose sum a hospital helps to open."""
        return max(self.min_survivors, self.parameters.threshold, SMALLEST_COHORT)

    @property
    def least_keys(self) -> int:
        """The fewest hospitals whose keys a hospital takes for a session."""
        return max(self.least_survivors, self.least_advertised)


@dataclass(frozen=True)
class Opening:
    """The server opens a session.

    Args:
        session: 32 random bytes. cohort: the hospitals that are asked, ascending.
        first_round, rounds: the rounds that the session serves. attempt: at these rounds, from 1.
        degree, threshold: as the server understands the terms; a hospital refuses others than its own.
    """

    session: bytes
    cohort: tuple[int, ...]
    first_round: int
    rounds: int
    attempt: int
    degree: int
    threshold: int


@dataclass(frozen=True)
class Advertisement:
    """A hospital's signed keys: one sealing key, and for each round a mask key and a commitment to its own seed.

    Args:
        hospital, session: whose, for what. attempt: of the session. nonce: 16 fresh bytes, for the graph.
        sealing_key, mask_keys: X25519 public keys. commitments: hashes of the self-mask seeds.
        signature: over all of it, by the hospital's pinned identity.
    """

    hospital: int
    session: bytes
    attempt: int
    nonce: bytes
    sealing_key: bytes
    mask_keys: tuple[bytes, ...]
    commitments: tuple[bytes, ...]
    signature: bytes = b""

    @property
    def statement(self) -> bytes:
        """What is signed."""
        return digest(
            "advertisement",
            self.session,
            self.attempt,
            self.hospital,
            self.nonce,
            self.sealing_key,
            len(self.mask_keys),
            *self.mask_keys,
            *self.commitments,
        )


@dataclass(frozen=True)
class KeyBook:
    """The server passes the signed keys on: all statements, and the whole of a hospital's neighbours' keys.

    Args:
        session: which. statements: (hospital, what it signed) of every hospital that advertised, ascending.
        neighbours: the advertisements of the receiver's neighbours.
    """

    session: bytes
    statements: tuple[tuple[int, bytes], ...]
    neighbours: tuple[Advertisement, ...]


def keys_digest(session: bytes, statements: Iterable[tuple[int, bytes]]) -> bytes:
    """The digest of the signed keys of a session, from which the graph is drawn."""
    return digest("keys", session, *(part for statement in statements for part in statement))


def seed_commitment(session: bytes, round: int, hospital: int, seed: bytes) -> bytes:
    """What a hospital advertises of its self-mask seed: it binds, and a 32-byte seed cannot be guessed."""
    return digest("self-mask seed", session, round, hospital, seed)


@dataclass(frozen=True)
class SealedShares:
    """One hospital's shares for one neighbour and all rounds of a session, which only that neighbour can read."""

    session: bytes
    sender: int
    receiver: int
    sealed: bytes

    @staticmethod
    def context(session: bytes, attempt: int, first_round: int, rounds: int, sender: int, receiver: int) -> bytes:
        """The associated data: a sealed message serves one session, one way, for its rounds alone."""
        return digest("shares", session, attempt, first_round, rounds, sender, receiver)


@dataclass(frozen=True)
class Deal:
    """The server delivers a hospital's sealed shares, and says who shared.

    Args:
        session: which. sharers: hospitals that shared their secrets, ascending. sealed: for the receiver.
    """

    session: bytes
    sharers: tuple[int, ...]
    sealed: tuple[SealedShares, ...]


@dataclass(frozen=True)
class Survivors:
    """The server says whose masked vectors it has.

    Args:
        session, round, attempt: of what. uploaders: hospitals that shared and were to upload, ascending.
        survivors: those whose vectors are in the sum, ascending.
    """

    session: bytes
    round: int
    attempt: int
    uploaders: tuple[int, ...]
    survivors: tuple[int, ...]

    def statement(self, terms: Terms, keys: bytes) -> bytes:
        """What a survivor signs: these lists under its own terms and the keys that it has seen itself.

        Args:
            terms: of the experiment. keys: `keys_digest` of the session.
        """
        encoding, parameters = terms.encoding, terms.parameters
        return digest(
            "survivors",
            self.session,
            self.round,
            self.attempt,
            keys,
            encoding.ring_bits,
            terms.length,
            *encoding.agreed,
            parameters.degree,
            parameters.threshold,
            terms.least_survivors,
            terms.least_keys,
            len(self.uploaders),
            *self.uploaders,
            *self.survivors,
        )


@dataclass(frozen=True)
class Signed:
    """A survivor's signature under the list of survivors."""

    hospital: int
    session: bytes
    round: int
    attempt: int
    signature: bytes


@dataclass(frozen=True)
class UnmaskRequest:
    """The server asks a survivor for shares.

    Args:
        survivors: the list that was signed. signatures: of survivors, those among the receiver's neighbours and
            its own at least. seeds_of: survivors whose self-mask seeds are asked for. keys_of: hospitals that
            dropped out, whose mask keys are asked for.
    """

    survivors: Survivors
    signatures: tuple[Signed, ...]
    seeds_of: tuple[int, ...]
    keys_of: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """A survivor's shares: of a hospital's self-mask seed or of its mask key, never of both.

    Args:
        seeds, keys: (hospital, share) pairs.
    """

    hospital: int
    session: bytes
    round: int
    attempt: int
    seeds: tuple[tuple[int, int], ...] = field(repr=False)
    keys: tuple[tuple[int, int], ...] = field(repr=False)
