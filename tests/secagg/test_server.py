from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.secagg import client as client_module
from lightning_fed.secagg.client import RoundSecrets
from lightning_fed.secagg.errors import ProtocolError, RoundAbortedError
from lightning_fed.secagg.keys import Identity, KeyPair
from lightning_fed.secagg.messages import Advertisement, Answer
from lightning_fed.secagg.parameters import Assumption, Parameters, choose, complete_graph
from lightning_fed.secagg.server import MOST_TRIES, AdvertiseStage, Session, UnmaskStage, open_session, sets_to_try
from lightning_fed.secagg.shamir import PRIME, lagrange_at_zero
from tests.secagg.make_vectors import fixed_number
from tests.secagg.parties import UPLOAD, Parties, advertise_all, mask_all, set_up, sign_all, terms_for


def advertised(parties: Parties) -> tuple[AdvertiseStage, dict[int, Advertisement]]:
    """A server that waits for keys, and what all hospitals say to it."""
    opening = open_session(parties.terms, parties.hospitals, 1, 1)
    sent = {hospital: client.advertise(opening) for hospital, client in parties.clients.items()}
    return AdvertiseStage(parties.terms, opening, parties.directory), sent


@pytest.fixture
def parties() -> Parties:
    return Parties(terms_for(6))


def test_sessions_have_fresh_names_and_the_terms_of_the_experiment(parties: Parties) -> None:
    first, second = (open_session(parties.terms, [3, 1, 2], 5, 1, 2) for _ in range(2))
    assert len(first.session) == 32
    assert first.session != second.session
    assert first == replace(second, session=first.session)
    assert (first.cohort, first.first_round, first.attempt, first.degree, first.threshold) == (
        (1, 2, 3),
        5,
        2,
        5,
        5,
    )


@pytest.mark.parametrize(
    "lie",
    [
        {"session": bytes(32)},
        {"attempt": 2},
        {"hospital": 7},
        {"hospital": 3},
        {"mask_keys": ()},
        {"commitments": ()},
        {"signature": bytes(64)},
        {"nonce": bytes(16)},
    ],
    ids=str,
)
def test_keys_that_every_neighbour_would_refuse_are_left_out(parties: Parties, lie: dict[str, Any]) -> None:
    stage, sent = advertised(parties)
    with pytest.raises(ProtocolError, match=r"the keys of hospital \d are not its own or not of this session"):
        stage.add(replace(sent[2], **lie))
    for one in sent.values():
        stage.add(one)
    assert tuple(stage.close().advertisements) == (0, 1, 2, 3, 4, 5)


def test_keys_are_taken_once(parties: Parties) -> None:
    stage, sent = advertised(parties)
    stage.add(sent[2])
    with pytest.raises(ProtocolError, match="the keys of hospital 2 are not its own or not of this session"):
        stage.add(sent[2])


def test_keys_that_another_identity_signed_are_left_out(parties: Parties) -> None:
    stage, sent = advertised(parties)
    with pytest.raises(ProtocolError, match="not its own"):
        stage.add(replace(sent[2], signature=Identity().sign(sent[2].statement)))


@pytest.mark.parametrize("weak", [bytes(32), b"\x01" + bytes(31), bytes(31)], ids=["zero", "one", "short"])
@pytest.mark.parametrize("place", ["mask_keys", "sealing_key"])
def test_a_corrupt_hospital_with_a_key_of_low_order_stops_itself_alone(
    parties: Parties, weak: bytes, place: str
) -> None:
    stage, sent = advertised(parties)
    bad: Any = {"mask_keys": (weak,)} if place == "mask_keys" else {"sealing_key": weak}
    lie = replace(sent[2], **bad)
    with pytest.raises(ProtocolError, match="no X25519 public key"):
        stage.add(replace(lie, signature=parties.identities[2].sign(lie.statement)))
    for hospital, one in sent.items():
        if hospital != 2:
            stage.add(one)
    assert tuple(stage.close().advertisements) == (0, 1, 3, 4, 5)


def test_keys_of_a_pinned_hospital_outside_the_cohort_are_left_out(parties: Parties) -> None:
    opening = open_session(parties.terms, range(5), 1, 1)
    stage = AdvertiseStage(parties.terms, opening, parties.directory)
    uninvited = parties.clients[5].advertise(replace(opening, cohort=(0, 1, 2, 3, 5)))
    with pytest.raises(ProtocolError, match="the keys of hospital 5 are not its own or not of this session"):
        stage.add(uninvited)


def test_shares_are_one_for_each_neighbour_by_the_sender_itself(parties: Parties) -> None:
    stage = advertise_all(parties)
    true = parties.clients[2].share_keys(stage.book(2))
    lies = [
        true[1:],
        (*true, true[0]),
        (*true[1:], replace(true[1])),
        (replace(true[0], sender=4), *true[1:]),
        (replace(true[0], session=bytes(32)), *true[1:]),
        (replace(true[0], receiver=2), *true[1:]),
        (),
    ]
    for lie in lies:
        with pytest.raises(ProtocolError, match="the shares of hospital 2 are not one for each of its neighbours"):
            stage.add(2, lie)
    stage.add(2, true)


def test_a_session_serves_its_rounds_alone() -> None:
    session = set_up(Parties(terms_for(4, rounds=3)), rounds=3, first_round=5)
    assert [round for round in range(12) if session.serves(round)] == [5, 6, 7]


@pytest.fixture
def unmasking(parties: Parties) -> UnmaskStage:
    """Hospital 5 dropped out before its upload; all others signed."""
    return sign_all(parties, set_up(parties), mask_all(parties, without=[5]))


def test_signatures_of_nobody_in_the_list_or_under_another_list_are_refused(parties: Parties) -> None:
    session = set_up(parties)
    stage = session.survivors(1, mask_all(parties, without=[5]))
    signed = parties.clients[2].sign(stage.listed)
    for lie in ({"hospital": 5}, {"hospital": 9}, {"round": 2}, {"attempt": 2}, {"session": bytes(32)}):
        with pytest.raises(ProtocolError, match="signed something else than this list of survivors"):
            stage.add(replace(signed, **lie))
    stage.add(signed)


def test_vectors_of_hospitals_that_did_not_share_are_not_in_the_list(parties: Parties) -> None:
    session = set_up(parties)
    assert session.survivors(1, [0, 1, 2, 3, 4, 17]).listed.survivors == (0, 1, 2, 3, 4)


def test_answers_other_than_what_was_asked_are_refused(parties: Parties, unmasking: UnmaskStage) -> None:
    answer = parties.clients[2].unmask(unmasking.request(2))
    lies: list[dict[str, Any]] = [
        {"hospital": 5},
        {"hospital": 9},
        {"round": 2},
        {"attempt": 2},
        {"session": bytes(32)},
        {"seeds": answer.seeds[1:]},
        {"seeds": (*answer.seeds, (5, 1))},
        {"seeds": answer.seeds[::-1]},
        {"keys": ()},
        {"keys": ((0, 1),)},
    ]
    for lie in lies:
        with pytest.raises(ProtocolError, match="answered something else than it was asked"):
            unmasking.add(replace(answer, **lie))
    unmasking.add(answer)
    with pytest.raises(ProtocolError, match="hospital 2 answered something else than it was asked"):
        unmasking.add(answer)


def test_what_is_asked_is_never_both_of_one_hospital(parties: Parties, unmasking: UnmaskStage) -> None:
    for hospital in unmasking.asked:
        request = unmasking.request(hospital)
        assert set(request.seeds_of) == {0, 1, 2, 3, 4}
        assert request.keys_of == (5,)


# Corrupted shares


def changed(answer: Answer, which: str, owner: int, change: int | None = None) -> Answer:
    """An answer in which one share was changed, by the holder's own choice if not by a given number."""
    change = fixed_number(answer.hospital, which, owner) if change is None else change
    shares = tuple((at, (share + change * (at == owner)) % PRIME) for at, share in getattr(answer, which))
    return replace(answer, **{which: shares})


def play(parties: Parties, liars: dict[int, tuple[str, int]], gone: tuple[int, ...] = ()) -> list[int]:
    """The opened sum where some holders lie about a share of an owner's; it must be that of the survivors.

    Args:
        liars: by holder, `seeds` or `keys` and the owner. gone: hospitals that never upload.
    """

    def tamper(method: str, hospital: int, answer: Any) -> Any:
        lies = method == "unmask" and hospital in liars and isinstance(answer, Answer)
        return changed(answer, *liars[hospital]) if lies else answer

    parties.tamper = tamper
    parties.dropping = dict.fromkeys(gone, UPLOAD)
    vectors = parties.vectors()
    session = parties.conductor.set_up(parties.hospitals, 1)
    unmasking, total = parties.open(session, 1, parties.upload(1, vectors, session))
    assert total.tolist() == parties.total(vectors, unmasking.survivors)
    return list(unmasking.survivors)


@pytest.mark.parametrize("liar", range(6))
@pytest.mark.parametrize("owner", [0, 3, 5])
def test_with_more_shares_than_the_threshold_one_wrong_share_does_no_harm(
    parties: Parties, liar: int, owner: int
) -> None:
    assert play(parties, {liar: ("seeds", owner)}) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("liar", range(5))
def test_a_wrong_share_of_a_mask_key_does_no_harm_either(liar: int) -> None:
    parties = Parties(terms_for(Parameters(6, 5, 4)))
    assert play(parties, {liar: ("keys", 5)}, gone=(5,)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("which", "owner"), [("seeds", 0), ("seeds", 4), ("keys", 5)])
@pytest.mark.parametrize("liar", range(5))
def test_with_exactly_the_threshold_one_wrong_share_aborts_the_round(
    parties: Parties, liar: int, which: str, owner: int
) -> None:
    secret = "self-mask seed" if which == "seeds" else "mask key"
    with pytest.raises(RoundAbortedError, match=rf"the shares of hospital {owner}'s {secret} do not give what it"):
        play(parties, {liar: (which, owner)}, gone=(5,))


@given(
    liars=st.dictionaries(
        st.integers(0, 7), st.tuples(st.sampled_from(["seeds", "keys"]), st.integers(0, 7)), max_size=5
    ),
    gone=st.sets(st.integers(0, 7), max_size=2),
)
def test_whoever_lies_about_what_the_sum_is_right_or_the_round_aborts(
    liars: dict[int, tuple[str, int]], gone: set[int]
) -> None:
    parties = Parties(terms_for(Parameters(8, 7, 5)))
    alive = set(range(8)) - gone
    right = {
        (which, owner): len(alive - {h for h, lie in liars.items() if lie == (which, owner)})
        for which, owner in [("seeds", h) for h in alive] + [("keys", h) for h in gone]
    }
    if min(right.values()) >= 5:
        assert set(play(parties, liars, tuple(gone))) == alive
    else:
        with pytest.raises(RoundAbortedError, match="do not give what it"):
            play(parties, liars, tuple(gone))


Lies = dict[int, dict[int, int]]
"""By holder and owner, what is added to the holder's share of the owner's seed."""


def unmasked(lies: Lies) -> UnmaskStage:
    """Of eight hospitals, five of whose shares open a secret, all have answered; some lied."""
    parties = Parties(terms_for(Parameters(8, 7, 5)))
    stage = sign_all(parties, set_up(parties), mask_all(parties))
    for hospital in stage.asked:
        answer = parties.clients[hospital].unmask(stage.request(hospital))
        for owner, change in lies.get(hospital, {}).items():
            answer = changed(answer, "seeds", owner, change)
        stage.add(answer)
    return stage


def test_holders_that_lie_alone_are_found_out() -> None:
    stage = unmasked({0: {0: 1, 5: 7}, 3: {5: 1}})
    assert stage.close().survivors == (0, 1, 2, 3, 4, 5, 6, 7)
    assert stage.wrong == {0}


def test_liars_in_league_do_not_shift_the_blame_on_others_to_have_the_round_aborted() -> None:
    """Hospitals 0 and 1 choose errors that cancel in one set of five: its secret is right, its polynomial is not.

    Who was blamed by that polynomial would be missing for the next secret, of which hospital 4's share is wrong.
    """
    weights = dict(zip((0, 1, 2, 3, 5), lagrange_at_zero((0, 1, 2, 3, 5)), strict=True))
    stage = unmasked({0: {0: weights[1]}, 1: {0: -weights[0]}, 4: {1: 1}})
    assert stage.close().survivors == (0, 1, 2, 3, 4, 5, 6, 7)
    assert not stage.wrong & {2, 3, 5, 6, 7}


def test_a_holder_that_lied_once_is_heard_where_its_share_is_needed() -> None:
    stage = unmasked({0: {0: 1}, 1: {1: 1}, 2: {1: 2}, 3: {1: 4}})
    assert stage.close().survivors == (0, 1, 2, 3, 4, 5, 6, 7)
    assert 0 in stage.wrong


@pytest.mark.parametrize("share", [-1, PRIME, 2**300, 1.5, None, "7"], ids=str)
def test_a_share_that_is_no_number_of_the_field_is_refused(
    parties: Parties, unmasking: UnmaskStage, share: Any
) -> None:
    answer = parties.clients[2].unmask(unmasking.request(2))
    (owner, _), *others = answer.seeds
    with pytest.raises((ProtocolError, TypeError)):
        unmasking.add(replace(answer, seeds=((owner, share), *others)))
    unmasking.add(answer)


def test_fewer_keys_than_a_ring_is_drawn_for_abort_the_round() -> None:
    parties = Parties(replace(terms_for(Parameters(12, 4, 3)), least_advertised=11))
    stage, sent = advertised(parties)
    for hospital in range(10):
        stage.add(sent[hospital])
    with pytest.raises(RoundAbortedError, match="10 hospitals advertised keys; 11 are needed"):
        stage.close()
    stage.add(sent[10])
    assert len(stage.close().advertisements) == 11


@pytest.mark.parametrize("liar", ["first", "last"])
def test_one_wrong_share_does_no_harm_in_a_large_federation_whoever_sends_it(liar: str) -> None:
    parties, owner = Parties(terms_for(choose(100, Assumption()), length=2)), 50
    session = set_up(parties)
    promised = parties.clients[owner]._session.secrets[1].seed
    holders = session.graph.holders(owner)
    assert len(holders) >= 32
    liar_itself = holders[0] if liar == "first" else holders[-1]
    stage = sign_all(parties, session, mask_all(parties))
    for hospital in holders:
        answer = parties.clients[hospital].unmask(stage.request(hospital))
        stage.add(changed(answer, "seeds", owner) if hospital == liar_itself else answer)
    assert stage._seed(owner) == promised


@given(many=st.integers(1, 40), data=st.data())
def test_the_sets_that_are_tried_are_sets_of_holders_the_first_of_them_fixed(
    many: int, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, many))
    holders = sorted(data.draw(st.sets(st.integers(0, 500), min_size=many, max_size=many)))
    tried = sets_to_try(holders, size)
    first = [next(tried), *(chosen for chosen, _ in zip(tried, range(50), strict=False))]
    assert first[0] == tuple(holders[:size])
    for chosen in first:
        assert len(set(chosen)) == size
        assert set(chosen) <= set(holders)
        assert list(chosen) == sorted(chosen)


def test_where_there_are_few_sets_all_of_them_are_tried_and_else_no_more_than_a_limit() -> None:
    assert list(sets_to_try(range(9), 7)) == list(combinations(range(9), 7))
    assert len(list(sets_to_try(range(40), 20))) == MOST_TRIES + 1


@pytest.mark.parametrize("owner", [0, 4])
def test_a_hospital_that_shares_another_seed_than_it_promised_aborts_the_round_and_gives_no_wrong_sum(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, owner: int
) -> None:
    session = corrupt_set_up(parties, monkeypatch, owner, of_seed=True)
    masked = parties.upload(1, parties.vectors(), session)
    with pytest.raises(
        RoundAbortedError, match=f"the shares of hospital {owner}'s self-mask seed do not give what"
    ):
        parties.open(session, 1, masked)


def test_a_hospital_that_shares_another_mask_key_than_it_advertised_aborts_the_round_in_which_it_drops_out(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = corrupt_set_up(parties, monkeypatch, 4, of_seed=False)
    parties.dropping = {4: UPLOAD}
    masked = parties.upload(1, parties.vectors(), session)
    with pytest.raises(
        RoundAbortedError, match="the shares of hospital 4's mask key do not give what it promised"
    ):
        parties.open(session, 1, masked)


def corrupt_set_up(parties: Parties, monkeypatch: pytest.MonkeyPatch, owner: int, of_seed: bool) -> Session:
    """A set-up in which one hospital splits another secret than the one that it advertised."""
    stage = advertise_all(parties)
    split = client_module.split
    secrets: RoundSecrets = parties.clients[owner]._session.secrets[1]
    promised = secrets.seed if of_seed else secrets.mask_key.secret
    other = KeyPair().secret

    def lying(secret: bytes, threshold: int, holders: Any) -> dict[int, int]:
        return split(other if secret == promised else secret, threshold, holders)

    with monkeypatch.context() as patch:
        patch.setattr(client_module, "split", lying)
        for hospital, client in parties.clients.items():
            stage.add(hospital, client.share_keys(stage.book(hospital)))
    session = stage.close()
    for hospital, client in parties.clients.items():
        client.receive(session.deal(hospital))
    return session


def test_a_hospital_that_masks_with_another_seed_than_it_promised_spoils_the_sum_only_by_noise(
    parties: Parties,
) -> None:
    """Nobody can tell: such a hospital might as well send any vector. The others' vectors stay hidden."""
    session = set_up(parties)
    ready: Any = parties.clients[4]._session
    ready.secrets[1] = replace(ready.secrets[1], seed=bytes(32))
    vectors = parties.vectors()
    unmasking, total = parties.open(session, 1, parties.upload(1, vectors, session))
    assert len(unmasking.survivors) == 6
    assert not np.array_equal(total, parties.total(vectors, parties.hospitals))


def test_shares_of_too_few_hospitals_abort(parties: Parties, unmasking: UnmaskStage) -> None:
    for hospital in unmasking.asked[:4]:
        unmasking.add(parties.clients[hospital].unmask(unmasking.request(hospital)))
    with pytest.raises(RoundAbortedError, match="4 shares of hospital 0's self-mask seed, 5 are needed"):
        unmasking.close()


def test_the_complete_graphs_default_is_the_one_of_these_tests(parties: Parties) -> None:
    assert parties.terms.parameters == complete_graph(6) == Parameters(6, 5, 5)
