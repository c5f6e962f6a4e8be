from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from lightning_fed.secagg.conductor import LOST_AT, STAGES, Conductor, Refusal, refuse_politely
from lightning_fed.secagg.errors import ProtocolError, RoundAbortedError
from lightning_fed.secagg.messages import Answer
from lightning_fed.secagg.parameters import Parameters
from tests.secagg.parties import UPLOAD, Parties, terms_for


@pytest.fixture
def parties() -> Parties:
    """Six hospitals, four of whose shares open a secret."""
    return Parties(terms_for(Parameters(6, 5, 4)))


def one_round(parties: Parties) -> tuple[int, ...]:
    """The survivors of a round whose sum is right."""
    vectors = parties.vectors()
    session = parties.conductor.set_up(parties.hospitals, 1)
    unmasking, total = parties.open(session, 1, parties.upload(1, vectors, session))
    assert total.tolist() == parties.total(vectors, unmasking.survivors)
    return unmasking.survivors


def test_the_stages_are_asked_in_their_order_each_of_those_that_are_left(parties: Parties) -> None:
    parties.dropping = {0: 1, 3: UPLOAD}
    asked: list[tuple[str, tuple[int, ...]]] = []

    def ask(method: str, messages: Mapping[int, Any]) -> dict[int, Any]:
        asked.append((method, tuple(messages)))
        return parties.ask(method, messages)

    parties.conductor = Conductor(parties.terms, parties.directory, ask)
    assert one_round(parties) == (1, 2, 4, 5)
    everybody = (0, 1, 2, 3, 4, 5)
    assert asked == [
        ("advertise", everybody),
        ("share_keys", everybody),
        ("receive", (1, 2, 3, 4, 5)),
        ("sign", (1, 2, 4, 5)),
        ("unmask", (1, 2, 4, 5)),
    ]
    assert list(LOST_AT) == [method for method, _ in asked]
    assert tuple(LOST_AT.values()) == STAGES


@pytest.mark.parametrize("method", LOST_AT)
def test_a_hospital_that_says_no_is_lost_at_that_stage_with_its_reason(parties: Parties, method: str) -> None:
    def tamper(asked: str, hospital: int, answer: Any) -> Any:
        return Refusal(2, "I would rather not") if (asked, hospital) == (method, 2) else answer

    parties.tamper = tamper
    before_masking = method in ("advertise", "share_keys")
    assert one_round(parties) == ((0, 1, 3, 4, 5) if before_masking else (0, 1, 2, 3, 4, 5))
    assert parties.conductor.lost == {2: LOST_AT[method]}
    assert parties.conductor.refusals == [Refusal(2, "I would rather not")]


def test_a_message_that_the_server_refuses_is_a_loss_too(parties: Parties) -> None:
    def tamper(asked: str, hospital: int, answer: Any) -> Any:
        return replace(answer, signature=bytes(64)) if (asked, hospital) == ("advertise", 2) else answer

    parties.tamper = tamper
    assert one_round(parties) == (0, 1, 3, 4, 5)
    assert parties.conductor.lost == {2: "before_keys"}
    [refusal] = parties.conductor.refusals
    assert refusal.hospital == 2
    assert "not its own or not of this session" in refusal.reason


@pytest.mark.parametrize("method", ["advertise", "sign", "unmask"])
def test_a_corrupt_hospital_cannot_speak_for_another(parties: Parties, method: str) -> None:
    """Hospital 0, asked first, sends what spoils hospital 5's own answer if it is taken for it."""

    def tamper(asked: str, hospital: int, answer: Any) -> Any:
        if (asked, hospital) != (method, 0):
            return answer
        posing = replace(answer, hospital=5)
        return replace(posing, seeds=((5, 1),), keys=()) if isinstance(answer, Answer) else posing

    parties.tamper = tamper
    survivors = one_round(parties)
    assert 5 in survivors
    assert parties.conductor.refusals == [Refusal(0, "it spoke for hospital 5")]
    assert parties.conductor.lost == {0: LOST_AT[method]}


@pytest.mark.parametrize("nonsense", [None, 7, "no", (), (1, 2), object], ids=str)
@pytest.mark.parametrize("method", ["advertise", "share_keys", "sign", "unmask"])
def test_an_answer_that_is_no_message_loses_its_sender_alone(parties: Parties, method: str, nonsense: Any) -> None:
    parties.tamper = lambda asked, hospital, answer: nonsense if (asked, hospital) == (method, 2) else answer
    assert set(one_round(parties)) >= {0, 1, 3, 4, 5}
    assert parties.conductor.lost == {2: LOST_AT[method]}
    assert [refusal.hospital for refusal in parties.conductor.refusals] == [2]


def test_losses_add_up_until_they_are_forgotten() -> None:
    parties = Parties(terms_for(Parameters(6, 5, 4), rounds=2))
    session = parties.conductor.set_up(parties.hospitals, 1, rounds=2)
    for round, gone in [(1, 3), (2, 4)]:
        parties.dropping = {gone: UPLOAD}
        parties.open(session, round, parties.upload(round, parties.vectors(), session))
    assert parties.conductor.lost == {3: "after_shares", 4: "after_shares"}
    parties.conductor.forget()
    assert parties.conductor.lost == {}


def test_hospitals_that_are_called_dead_though_they_are_alive_just_miss_the_round(parties: Parties) -> None:
    vectors = parties.vectors()
    session = parties.conductor.set_up(parties.hospitals, 1)
    masked = parties.upload(1, vectors, session)
    del masked[4]
    unmasking, total = parties.open(session, 1, masked)
    assert unmasking.dropped == (4,)
    assert total.tolist() == parties.total(vectors, (0, 1, 2, 3, 5))


def test_a_round_of_another_session_is_refused_by_all_and_aborts(parties: Parties) -> None:
    session = parties.conductor.set_up(parties.hospitals, 1)
    masked = parties.upload(1, parties.vectors(), session)
    with pytest.raises(RoundAbortedError, match="0 hospitals signed the survivors; 4 are needed"):
        parties.open(session, 2, masked)
    assert len(parties.conductor.refusals) == 6


def test_a_refusal_travels_as_a_value_and_other_errors_do_not() -> None:
    def no() -> None:
        raise ProtocolError("because")

    assert refuse_politely(3, no) == Refusal(3, "because")
    assert refuse_politely(3, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        refuse_politely(3, lambda: 1 // 0)
