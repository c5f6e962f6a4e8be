"""What a server, with hospitals that collude, makes of everything that passes through it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_fed.secagg.client import Ready, RoundSecrets
from lightning_fed.secagg.conductor import STAGES
from lightning_fed.secagg.errors import RoundAbortedError
from lightning_fed.secagg.keys import KeyPair
from lightning_fed.secagg.masks import Mask, Words
from lightning_fed.secagg.parameters import Assumption, Parameters, choose, complete_graph
from lightning_fed.secagg.server import Session
from tests.secagg.parties import NEVER, UPLOAD, Opened, Parties, set_up, terms_for
from tests.secagg.statistics import by_chance

VICTIM = 2


def run(
    parties: Parties, dropping: Mapping[int, Mapping[int, int]]
) -> tuple[Session, dict[int, dict[int, Words]], dict[int, dict[int, Words]]]:
    """Rounds of one set-up, each with its own dropouts.

    Args:
        dropping: by round from 1 on, the stage at which hospitals drop out.

    Returns:
        The session, and by round and hospital the vectors and what was sent of them.
    """
    rounds = len(dropping)
    session = parties.conductor.set_up(parties.hospitals, 1, rounds)
    vectors, masked = {}, {}
    for round in range(1, rounds + 1):
        parties.dropping = dropping[round]
        vectors[round] = parties.vectors(round)
        masked[round] = parties.upload(round, vectors[round], session)
        try:
            unmasking, total = parties.open(session, round, masked[round])
        except RoundAbortedError:
            continue
        assert total.tolist() == parties.total(vectors[round], unmasking.survivors)
    return session, vectors, masked


def vectors_that_come_out(parties: Parties, dropping: Mapping[int, Mapping[int, int]]) -> tuple[int, Opened]:
    """How many single vectors the server opens from its whole transcript, and what it counted."""
    session, vectors, masked = run(parties, dropping)
    opened = Opened.from_transcript(parties.terms, session, parties.transcript)
    found = 0
    for round, sent in masked.items():
        for hospital, vector in sent.items():
            peeled = opened.peel(vector, hospital, round)
            found += np.array_equal(peeled, vectors[round][hospital])
    return found, opened


SURVIVES_THEN_DROPS = {1: {}, **{round: {VICTIM: UPLOAD} for round in (2, 3, 4, 5)}}


def test_a_hospital_that_survives_a_round_and_drops_in_every_later_one_is_not_opened() -> None:
    parties = Parties(terms_for(complete_graph(6), rounds=5))
    found, opened = vectors_that_come_out(parties, SURVIVES_THEN_DROPS)
    assert found == 0
    threshold = parties.terms.parameters.threshold
    assert len(opened.seeds[VICTIM, 1]) >= threshold
    assert (VICTIM, 1) not in opened.keys
    for round in (2, 3, 4, 5):
        assert len(opened.keys[VICTIM, round]) >= threshold
        assert (VICTIM, round) not in opened.seeds
    assert len(opened.secrets) == 4


def test_with_one_mask_key_for_all_rounds_it_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[KeyPair] = []

    def one_key_for_a_hospital() -> RoundSecrets:
        if len(kept) % 5 == 0:
            kept.append(KeyPair())
        else:
            kept.append(kept[-1])
        return RoundSecrets(kept[-1], KeyPair().secret)

    monkeypatch.setattr(RoundSecrets, "fresh", one_key_for_a_hospital)
    found, _ = vectors_that_come_out(Parties(terms_for(complete_graph(6), rounds=5)), SURVIVES_THEN_DROPS)
    assert found >= 1


def test_a_server_that_had_both_of_a_hospitals_secrets_would_open_it() -> None:
    """The counting above has eyes: with the one missing secret, the same peeling gives the vector."""
    parties = Parties(terms_for(complete_graph(6), rounds=5))
    session = parties.conductor.set_up(parties.hospitals, 1, 5)
    pair = parties.clients[VICTIM]._session.secrets[1].mask_key
    vectors = parties.vectors()
    masked = parties.upload(1, vectors, session)
    parties.open(session, 1, masked)
    opened = Opened.from_transcript(parties.terms, session, parties.transcript)
    assert not np.array_equal(opened.peel(masked[VICTIM], VICTIM, 1), vectors[VICTIM])
    opened.learn(pair)
    assert np.array_equal(opened.peel(masked[VICTIM], VICTIM, 1), vectors[VICTIM])


@st.composite
def histories(draw: st.DrawFn) -> tuple[Parties, dict[int, dict[int, int]]]:
    """Some rounds of a complete graph or a ring under the rule, with any dropouts in each."""
    parameters = draw(
        st.sampled_from([complete_graph(4), complete_graph(7), Parameters(6, 5, 4), choose(16, Assumption())])
    )
    rounds = draw(st.integers(1, 4))
    dice = random.Random(draw(st.integers(0, 10**6)))
    rate = draw(st.sampled_from([0.05, 0.15, 0.3]))
    dropping = {
        round: {h: dice.randrange(UPLOAD, NEVER) for h in range(parameters.hospitals) if dice.random() < rate}
        for round in range(1, rounds + 1)
    }
    return Parties(terms_for(parameters, rounds=rounds)), dropping


@settings(max_examples=40)
@given(history=histories())
def test_of_each_hospital_and_round_one_of_the_two_secrets_stays_closed(
    history: tuple[Parties, dict[int, dict[int, int]]],
) -> None:
    parties, dropping = history
    found, opened = vectors_that_come_out(parties, dropping)
    assert found == 0
    assert opened.most_of_the_scarcer() < parties.terms.parameters.threshold
    assert not {one for one, shares in opened.keys.items() if shares} & {
        one for one, shares in opened.seeds.items() if shares
    }


def test_dropouts_before_the_upload_open_keys_and_survivors_open_seeds() -> None:
    parties = Parties(terms_for(Parameters(6, 5, 4), rounds=2))
    at_unmasking = STAGES.index("at_unmasking")
    _, opened = vectors_that_come_out(parties, {1: {0: UPLOAD, 5: at_unmasking}, 2: {4: UPLOAD}})
    assert set(opened.keys) == {(0, 1), (4, 2)}
    assert set(opened.seeds) == {(h, 1) for h in (1, 2, 3, 4, 5)} | {(h, 2) for h in (0, 1, 2, 3, 5)}
    assert {len(shares) for shares in opened.keys.values()} == {4, 5}


class Guesser:
    """A server with two corrupt hospitals of four guesses which of two updates the victim sent.

    It takes all masks that the transcript and the corrupt hospitals' keys open from the victim's vector, and
    names the nearer update. The honest hospital's vector is uniform, so that the sum itself says nothing.
    """

    VICTIM, HONEST, CORRUPT = 0, 3, (1, 2)
    LENGTH, ROUNDS_PER_SETUP = 8, 20

    def __init__(self) -> None:
        self.parties = Parties(terms_for(4, length=self.LENGTH, bits=20, rounds=self.ROUNDS_PER_SETUP))
        self.dice = np.random.default_rng(0)

    def right(self, rounds: int) -> int:
        """Right guesses in so many rounds."""
        right = 0
        for first in range(1, rounds + 1, self.ROUNDS_PER_SETUP):
            session = set_up(self.parties, self.ROUNDS_PER_SETUP, first)
            ready: list[Any] = [self.parties.clients[hospital]._session for hospital in self.CORRUPT]
            stolen = [secrets.mask_key for one in ready for secrets in one.secrets.values()]
            for round in range(first, first + self.ROUNDS_PER_SETUP):
                right += self._guesses_right(session, round, stolen)
        return right

    def _guesses_right(self, session: Session, round: int, stolen: list[KeyPair]) -> bool:
        parties = self.parties
        parties.transcript.clear()
        parties.dropping = {self.CORRUPT[0]: UPLOAD} if round % 3 == 0 else {}
        updates = self.dice.integers(-1000, 1000, (2, self.LENGTH)).astype(np.int32).view(np.uint32)
        sent = int(self.dice.integers(2))
        vectors = parties.vectors(round) | {self.VICTIM: updates[sent]}
        masked = parties.upload(round, vectors, session)
        parties.open(session, round, masked)
        opened = Opened.from_transcript(parties.terms, session, parties.transcript)
        opened.learn(*stolen)
        peeled = opened.peel(masked[self.VICTIM], self.VICTIM, round)
        far = [np.abs((peeled - update).view(np.int32).astype(np.float64)).sum() for update in updates]
        return int(np.argmin(far)) == sent


@pytest.mark.slow
def test_which_of_two_updates_was_sent_is_guessed_no_better_than_by_chance() -> None:
    assert by_chance(Guesser().right(1000), 1000) > 1e-6


def test_it_is_always_guessed_if_the_one_mask_with_the_honest_hospital_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    masks = Ready._masks

    def leaving_out_one(self: Ready, round: int, secrets: RoundSecrets) -> list[Mask]:
        own, *pairs = masks(self, round, secrets)
        honest = {Guesser.VICTIM, Guesser.HONEST}
        kept = [
            pair for other, pair in zip(self.neighbours, pairs, strict=True) if {self.me.hospital, other} != honest
        ]
        return [own, *kept]

    monkeypatch.setattr(Ready, "_masks", leaving_out_one)
    assert Guesser().right(100) == 100
