"""No keystream is used twice, and masks hide what they are added to."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lightning_fed.secagg import client as client_module
from lightning_fed.secagg.masks import Mask, Words
from lightning_fed.secagg.parameters import Parameters
from tests.secagg.parties import UPLOAD, Parties, mask_all, set_up, terms_for
from tests.secagg.statistics import uniform_bytes, uniform_counts

ROUNDS = 1000


class Ledger:
    """Notes every keystream that a hospital's client applies."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.uses: dict[bytes, list[tuple[int, bool]]] = {}
        self.calls = 0
        apply_masks = client_module.apply_masks

        def noting(vector: Words, masks: Sequence[Mask], start: int = 0) -> None:
            for mask in masks:
                self.uses.setdefault(mask.key, []).append((self.calls, mask.negative))
            self.calls += 1
            apply_masks(vector, masks, start)

        monkeypatch.setattr(client_module, "apply_masks", noting)

    def used_twice(self) -> list[bytes]:
        """Keys other than of own masks, applied once, and of pairs, applied once by each in opposite ways."""
        return [
            key
            for key, uses in self.uses.items()
            if len(uses) > 2 or (len(uses) == 2 and (uses[0][0] == uses[1][0] or uses[0][1] == uses[1][1]))
        ]


@pytest.mark.slow
def test_no_keystream_is_used_twice_in_a_thousand_rounds_with_aborts_and_restarts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ledger, draw = Ledger(monkeypatch), random.Random(0)
    parties = Parties(terms_for(4, length=3, rounds=20), tmp_path)
    expected: Counter[str] = Counter()
    round, attempts, restarts = 1, 0, 0
    while round <= ROUNDS:
        rounds = min(draw.choice([1, 5, 20]), ROUNDS - round + 1)
        attempts += 1
        set_up(parties, rounds, round, attempt=draw.randint(1, 2))
        for _ in range(rounds):
            gone = draw.sample(parties.hospitals, draw.choice([0, 0, 0, 1, 2]))
            mask_all(parties, round, without=gone)
            expected["self"] += 4 - len(gone)
            expected["pair uses"] += 3 * (4 - len(gone))
            if gone and draw.random() < 0.3:  # the round is tried again, with a new session
                break
            round += 1
        if draw.random() < 0.3:
            parties.restart(draw.choice(parties.hospitals))
            restarts += 1
    assert ledger.used_twice() == []
    assert attempts > 100
    assert restarts > 20
    assert sum(len(uses) for uses in ledger.uses.values()) == expected["self"] + expected["pair uses"]
    assert len(ledger.uses) > 7 * ROUNDS


def test_the_same_round_again_by_the_same_and_by_restarted_hospitals_takes_fresh_keystreams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger = Ledger(monkeypatch)
    parties = Parties(terms_for(5, length=3))
    for attempt in (1, 1, 2, 2):
        set_up(parties, attempt=attempt)
        mask_all(parties)
        for hospital in parties.hospitals:
            parties.restart(hospital)
    assert ledger.used_twice() == []
    assert len(ledger.uses) == 4 * (5 + 10)


def test_a_keystream_that_is_used_twice_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(monkeypatch)
    parties = Parties(terms_for(4, length=3, rounds=2))
    set_up(parties, rounds=2)
    ready = parties.clients[0]._session
    ready.secrets[2] = ready.secrets[1]
    monkeypatch.setattr(client_module.Context, "_info", lambda *_: b"the same for every round")
    mask_all(parties, 1)
    mask_all(parties, 2)
    assert ledger.used_twice()


def test_the_server_takes_away_what_is_left_of_the_very_same_keystreams(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(monkeypatch)
    parties = Parties(terms_for(Parameters(6, 5, 4)))
    parties.dropping = {5: UPLOAD}
    session = parties.conductor.set_up(parties.hospitals, 1)
    unmasking, _ = parties.open(session, 1, parties.upload(1, parties.vectors(), session))
    left = {key: uses[0][1] for key, uses in ledger.uses.items() if len(uses) == 1}
    assert {mask.key: not mask.negative for mask in unmasking.masks} == left
    assert len(left) == len(unmasking.masks) == 5 + 5


# What a masked vector looks like


def masked_zeros(sessions: int, length: int) -> np.ndarray:
    """uint32 (sessions, 4 hospitals, length): vectors of zeros, masked in so many sessions."""
    parties = Parties(terms_for(4, length=length))
    found = []
    for round in range(1, sessions + 1):
        set_up(parties, first_round=round)
        found.append(list(mask_all(parties, round).values()))
    return np.array(found)


def test_masked_vectors_of_a_constant_are_uniform_in_every_byte_and_across_sessions() -> None:
    masked = masked_zeros(150, 64)
    octets = masked.view(np.uint8).reshape(150, 4, 64, 4)
    assert uniform_bytes(octets.tobytes()) > 1e-6
    for place in range(4):
        assert uniform_bytes(octets[..., place].tobytes()) > 1e-6
    for hospital in range(4):
        assert uniform_bytes(octets[:, hospital].tobytes()) > 1e-6
    for bits in (1, 2, 4):
        assert uniform_counts(np.bincount((masked % 2**bits).ravel())) > 1e-6
    for apart in (masked[1:] - masked[:-1], masked[:, 1:] - masked[:, :-1], masked[..., 1:] - masked[..., :-1]):
        assert uniform_bytes(apart.tobytes()) > 1e-6


def test_the_test_of_uniformity_rejects_vectors_without_masks_and_with_masks_used_again() -> None:
    generator = np.random.default_rng(0)
    updates = generator.normal(0, 2**17, (150, 4, 64)).astype(np.int32).view(np.uint32)
    assert uniform_bytes(updates.tobytes()) < 1e-6
    again = updates + masked_zeros(1, 64)
    assert uniform_bytes((again[1:] - again[:-1]).tobytes()) < 1e-6
