"""A hospital among honest others, before a server that lies to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_fed.secagg import client as client_module
from lightning_fed.secagg.client import MOST_OPENINGS, RoundSecrets
from lightning_fed.secagg.errors import ProtocolError
from lightning_fed.secagg.keys import Identity, KeyPair
from lightning_fed.secagg.messages import Advertisement, KeyBook, Opening, Signed
from lightning_fed.secagg.parameters import Assumption, Parameters, choose, complete_graph
from lightning_fed.secagg.quantise import Encoding
from lightning_fed.secagg.server import ShareStage, UnmaskStage, open_session
from tests.secagg.parties import (
    Parties,
    advertise_all,
    mask_all,
    set_up,
    share_all,
    sign_all,
    terms_for,
)

VICTIM = 2


def refused(reason: str) -> AbstractContextManager[Any]:
    return pytest.raises(ProtocolError, match=reason)


@pytest.fixture
def parties() -> Parties:
    """Six hospitals on the complete graph; five shares open a secret."""
    return Parties(terms_for(6))


@pytest.fixture
def opening(parties: Parties) -> Opening:
    return open_session(parties.terms, parties.hospitals, 1, 1)


# Stage 1: the session is opened


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ({"cohort": (0, 1, 3, 4, 5)}, "not in the cohort that it is asked for"),
        ({"cohort": (0, 1, 2, 2, 4, 5)}, "holds a hospital twice"),
        ({"cohort": (0, 1, 2, 5, 4, 3)}, "holds a hospital twice"),
        ({"cohort": (0, 1, 2, 3, 4, 6)}, "without a pinned identity"),
        ({"threshold": 4}, "the threshold is below the rule's"),
        ({"threshold": 1}, "the threshold is below the rule's"),
        ({"threshold": 6}, "not those of the experiment"),
        ({"degree": 4}, "not those of the experiment"),
        ({"rounds": 2}, "for more rounds than a set-up serves"),
        ({"rounds": 0}, "for more rounds than a set-up serves"),
        ({"session": b"short"}, "has no proper name"),
    ],
    ids=str,
)
def test_an_opening_that_is_not_the_experiments_is_refused(
    parties: Parties, opening: Opening, lie: dict[str, Any], reason: str
) -> None:
    with refused(reason):
        parties.clients[VICTIM].advertise(replace(opening, **lie))
    assert parties.clients[VICTIM].advertise(opening).hospital == VICTIM


def test_a_cohort_larger_than_degree_and_threshold_are_for_is_refused() -> None:
    """Six hospitals' terms in a federation of nine: on a ring of nine, five shares would be no majority."""
    parties = Parties(terms_for(9))
    victim = parties.clients[VICTIM]
    for terms in (
        replace(parties.terms, parameters=complete_graph(6)),
        replace(parties.terms, encoding=Encoding(6, 1.0, 12, 1000)),
    ):
        victim.me = replace(victim.me, terms=terms)
        whole = open_session(terms, parties.hospitals, 1, 1)
        with refused("the cohort is larger than degree, threshold and ring are for"):
            victim.advertise(whole)
        assert victim.advertise(replace(whole, cohort=whole.cohort[:6])).hospital == VICTIM


def test_a_session_is_opened_once(parties: Parties, opening: Opening) -> None:
    victim = parties.clients[VICTIM]
    victim.advertise(opening)
    with refused("the session was opened before"):
        victim.advertise(opening)
    victim.advertise(replace(opening, session=os.urandom(32)))
    with refused("the session was opened before"):
        victim.advertise(replace(opening, attempt=2))


def test_a_round_is_begun_three_times_at_most(parties: Parties) -> None:
    victim = parties.clients[VICTIM]
    for attempt in range(MOST_OPENINGS):
        victim.advertise(open_session(parties.terms, parties.hospitals, 4, 1, attempt))
    with refused("round 4 was begun 3 times already"):
        victim.advertise(open_session(parties.terms, parties.hospitals, 4, 1, 9))
    victim.advertise(open_session(parties.terms, parties.hospitals, 5, 1))


@pytest.mark.parametrize(("first", "rounds"), [(0, 1), (-1, 2), (11, 1), (10, 2)])
def test_rounds_that_the_experiment_does_not_have_are_refused(first: int, rounds: int) -> None:
    parties = Parties(replace(terms_for(6, rounds=2), rounds=10))
    victim = parties.clients[VICTIM]
    with refused("the session is for rounds that the experiment does not have"):
        victim.advertise(open_session(parties.terms, parties.hospitals, first, rounds))
    victim.advertise(open_session(parties.terms, parties.hospitals, 9, 2))


def test_two_sessions_share_no_key(parties: Parties) -> None:
    seen: set[bytes] = set()
    for number in range(6):
        for sent in advertise_all(parties, first_round=number // 2 + 1).advertisements.values():
            fresh = {sent.nonce, sent.sealing_key, *sent.mask_keys, *sent.commitments}
            assert len(fresh) == 4
            assert not fresh & seen
            seen |= fresh


# Stage 2: the keys of the others


def book_with(stage: ShareStage, hospital: int, changed: Advertisement) -> KeyBook:
    """A hospital's book with another's advertisement put in place of the true one, statement and all."""
    book = stage.book(hospital)
    return replace(
        book,
        statements=tuple((h, changed.statement if h == changed.hospital else said) for h, said in book.statements),
        neighbours=tuple(changed if sent.hospital == changed.hospital else sent for sent in book.neighbours),
    )


def swapped(sent: Advertisement) -> Advertisement:
    """A mask key put in place of a hospital's own, by someone who knows its secret half."""
    return replace(sent, mask_keys=(KeyPair().public,))


CHANGED_KEYS: dict[str, tuple[Callable[[Advertisement], Advertisement], str]] = {
    "a swapped mask key": (swapped, "not signed by its pinned identity"),
    "a swapped sealing key": (
        lambda sent: replace(sent, sealing_key=KeyPair().public),
        "not signed by its pinned identity",
    ),
    "a swapped commitment": (lambda sent: replace(sent, commitments=(bytes(32),)), "not signed by its pinned"),
    "a swapped nonce": (lambda sent: replace(sent, nonce=bytes(16)), "not signed by its pinned identity"),
    "swapped and signed afresh": (
        lambda sent: replace(swapped(sent), signature=Identity().sign(swapped(sent).statement)),
        "not signed by its pinned identity",
    ),
    "no signature": (lambda sent: replace(sent, signature=b""), "not signed by its pinned identity"),
    "another session": (lambda sent: replace(sent, session=bytes(32)), "not for this session"),
    "another attempt": (lambda sent: replace(sent, attempt=2), "not for this session"),
    "keys of more rounds": (
        lambda sent: replace(sent, mask_keys=sent.mask_keys * 2, commitments=sent.commitments * 2),
        "not for this session",
    ),
    "fewer commitments than keys": (lambda sent: replace(sent, commitments=()), "not for this session"),
}


@pytest.mark.parametrize("lie", CHANGED_KEYS)
def test_keys_that_their_owner_did_not_sign_for_this_session_are_refused(parties: Parties, lie: str) -> None:
    stage = advertise_all(parties)
    change, reason = CHANGED_KEYS[lie]
    with refused(f"the keys of hospital 4 are {reason}"):
        parties.clients[VICTIM].share_keys(book_with(stage, VICTIM, change(stage.advertisements[4])))
    assert len(parties.clients[VICTIM].share_keys(stage.book(VICTIM))) == 5


def test_keys_of_an_earlier_session_are_refused_though_their_owner_signed_them(parties: Parties) -> None:
    old = advertise_all(parties).advertisements[4]
    stage = advertise_all(parties, attempt=1)
    with refused("the keys of hospital 4 are not for this session"):
        parties.clients[VICTIM].share_keys(book_with(stage, VICTIM, old))


def test_keys_of_one_hospital_under_the_number_of_another_are_refused(parties: Parties) -> None:
    stage = advertise_all(parties)
    posing = replace(stage.advertisements[3], hospital=4)
    with refused("the keys of hospital 4 are not signed by its pinned identity"):
        parties.clients[VICTIM].share_keys(book_with(stage, VICTIM, posing))


def test_a_statement_other_than_that_of_the_keys_beside_it_is_refused(parties: Parties) -> None:
    stage = advertise_all(parties)
    book = stage.book(VICTIM)
    lie = tuple((h, b"something else" if h == 4 else said) for h, said in book.statements)
    with refused("the keys of hospital 4 are not for this session"):
        parties.clients[VICTIM].share_keys(replace(book, statements=lie))


def test_the_hospitals_own_keys_may_not_be_changed_nor_left_out(parties: Parties) -> None:
    stage = advertise_all(parties)
    book = stage.book(VICTIM)
    others = tuple(said for said in book.statements if said[0] != VICTIM)
    changed = tuple(sorted([*others, (VICTIM, swapped(stage.advertisements[VICTIM]).statement)]))
    for lie in (others, changed):
        with refused("this hospital's own keys were changed"):
            parties.clients[VICTIM].share_keys(replace(book, statements=lie))


def test_books_that_do_not_fit_the_session_are_refused(parties: Parties) -> None:
    stage = advertise_all(parties)
    book, victim = stage.book(VICTIM), parties.clients[VICTIM]
    four = [said for said in book.statements if said[0] in (0, 1, VICTIM, 3)]
    lies = [
        (replace(book, session=bytes(32)), "the keys are of another session"),
        (replace(book, statements=book.statements[::-1]), "names a hospital twice"),
        (replace(book, statements=(*book.statements, book.statements[-1])), "names a hospital twice"),
        (replace(book, statements=(*book.statements, (9, b"x"))), "one outside the cohort"),
        (replace(book, statements=tuple(four)), "too few hospitals advertised keys"),
        (replace(book, neighbours=book.neighbours[1:]), "not those of this hospital's neighbours"),
        (
            replace(book, neighbours=(*book.neighbours, book.neighbours[0])),
            "not those of this hospital's neighbours",
        ),
        (
            replace(book, neighbours=(*book.neighbours, stage.advertisements[VICTIM])),
            "not those of this hospital's neighbours",
        ),
    ]
    for lie, reason in lies:
        with refused(reason):
            victim.share_keys(lie)
    assert len(victim.share_keys(book)) == 5


def test_on_a_ring_of_fewer_hospitals_than_the_rule_counts_on_nothing_is_shared() -> None:
    parties = Parties(replace(terms_for(Parameters(12, 4, 3)), least_advertised=11))
    stage = advertise_all(parties)
    book = stage.book(VICTIM)
    few = tuple(said for said in book.statements if said[0] < 10)
    with refused("too few hospitals advertised keys"):
        parties.clients[VICTIM].share_keys(replace(book, statements=few))
    assert len(parties.clients[VICTIM].share_keys(book)) == 4


def test_on_a_ring_the_hospital_finds_its_neighbours_itself() -> None:
    parties = Parties(terms_for(Parameters(12, 4, 3)))
    stage = advertise_all(parties)
    strangers = [h for h in parties.hospitals if h not in (VICTIM, *stage.graph.neighbours(VICTIM))]
    chosen = tuple(stage.advertisements[h] for h in strangers[:4])
    with refused("not those of this hospital's neighbours"):
        parties.clients[VICTIM].share_keys(replace(stage.book(VICTIM), neighbours=chosen))


def test_shares_for_neighbours_are_sealed_and_differ_for_each(parties: Parties) -> None:
    stage = advertise_all(parties)
    victim = parties.clients[VICTIM]
    secrets = victim._session.secrets[1]
    sealed = victim.share_keys(stage.book(VICTIM))
    assert sorted(message.receiver for message in sealed) == [0, 1, 3, 4, 5]
    assert len({message.sealed for message in sealed}) == 5
    for message in sealed:
        assert secrets.seed not in message.sealed
        assert secrets.mask_key.secret not in message.sealed


# Stage 2, the other side: the neighbours' shares


def test_deals_that_do_not_fit_the_session_are_refused(parties: Parties) -> None:
    session = share_all(parties, advertise_all(parties))
    deal, victim = session.deal(VICTIM), parties.clients[VICTIM]
    without = tuple(message for message in deal.sealed if message.sender != 4)
    damaged = replace(deal.sealed[0], sealed=deal.sealed[0].sealed[:-1] + b"?")
    lies = [
        (replace(deal, session=bytes(32)), "the shares are of another session"),
        (replace(deal, sharers=(0, 1, 3, 4, 5)), "not one of those that advertised"),
        (replace(deal, sharers=(0, 1, 2, 2, 4, 5)), "not one of those that advertised"),
        (replace(deal, sharers=(0, 1, 2, 3, 4, 6)), "not one of those that advertised"),
        (replace(deal, sharers=(0, 1, 2, 3)), "too few hospitals shared their secrets"),
        (replace(deal, sealed=without), "not one of each neighbour that shared"),
        (replace(deal, sharers=(0, 1, 2, 3, 5)), "not one of each neighbour that shared"),
        (replace(deal, sealed=(*deal.sealed, deal.sealed[0])), "not one of each neighbour that shared"),
        (replace(deal, sealed=(damaged, *deal.sealed[1:])), "damaged or was meant for something else"),
        (
            replace(deal, sealed=(replace(deal.sealed[0], session=bytes(32)), *deal.sealed[1:])),
            "a sealed message is of another session",
        ),
        (replace(deal, sealed=session.deal(3).sealed), "not one of each neighbour that shared"),
    ]
    for lie, reason in lies:
        with refused(reason):
            victim.receive(lie)
    victim.receive(deal)


def test_shares_sealed_for_another_hospital_are_not_taken_under_a_false_address(parties: Parties) -> None:
    session = share_all(parties, advertise_all(parties))
    deal = session.deal(VICTIM)
    of_zero_for_three = next(message for message in session.deal(3).sealed if message.sender == 0)
    lie = tuple(replace(of_zero_for_three, receiver=VICTIM) if m.sender == 0 else m for m in deal.sealed)
    with refused("damaged or was meant for something else"):
        parties.clients[VICTIM].receive(replace(deal, sealed=lie))


def test_ones_own_sealed_message_does_not_come_back_as_a_neighbours(parties: Parties) -> None:
    session = share_all(parties, advertise_all(parties))
    deal = session.deal(VICTIM)
    own = next(message for message in session.deal(4).sealed if message.sender == VICTIM)
    reflected = replace(own, sender=4, receiver=VICTIM)
    lie = tuple(reflected if message.sender == 4 else message for message in deal.sealed)
    with refused("damaged or was meant for something else"):
        parties.clients[VICTIM].receive(replace(deal, sealed=lie))


def test_sealed_shares_of_an_earlier_session_do_not_come_again(parties: Parties) -> None:
    old = share_all(parties, advertise_all(parties)).deal(VICTIM)
    session = share_all(parties, advertise_all(parties))
    lie = tuple(replace(message, session=session.opening.session) for message in old.sealed)
    with refused("damaged or was meant for something else"):
        parties.clients[VICTIM].receive(replace(session.deal(VICTIM), sealed=lie))


def test_hospitals_that_were_told_of_different_rounds_do_not_open_each_others_shares() -> None:
    parties = Parties(terms_for(6, rounds=2))
    opening = open_session(parties.terms, parties.hospitals, 1, 2)
    shifted = replace(opening, first_round=2)
    sent = {h: c.advertise(shifted if h == VICTIM else opening) for h, c in parties.clients.items()}
    session = share_all(parties, ShareStage(parties.terms, opening, sent))
    for hospital in parties.hospitals:
        with refused("damaged or was meant for something else"):
            parties.clients[hospital].receive(session.deal(hospital))


def test_a_hospital_whose_neighbours_are_said_not_to_have_shared_sends_nothing() -> None:
    """No pair mask would be in its vector, and its neighbours, told the truth, would open its own mask."""
    parties = Parties(terms_for(choose(16, Assumption())))
    session = share_all(parties, advertise_all(parties))
    threshold = parties.terms.parameters.threshold
    neighbours = session.graph.neighbours(VICTIM)
    strangers = [h for h in parties.hospitals if h not in (VICTIM, *neighbours)]
    victim, deal = parties.clients[VICTIM], session.deal(VICTIM)
    for told in (0, threshold - 1):
        near = neighbours[:told]
        sharers = tuple(sorted((VICTIM, *near, *strangers)))
        lie = replace(deal, sharers=sharers, sealed=tuple(m for m in deal.sealed if m.sender in near))
        with refused(f"only {told} neighbours shared their secrets, not {threshold}"):
            victim.receive(lie)
    with refused("a message for the stage 'ready' came in the stage 'shared'"):
        victim.mask(1, np.zeros(parties.terms.length, dtype=np.uint32))
    near = neighbours[:threshold]
    sharers = tuple(sorted((VICTIM, *near, *strangers)))
    victim.receive(replace(deal, sharers=sharers, sealed=tuple(m for m in deal.sealed if m.sender in near)))


# Stage 3: masking


def test_a_round_is_masked_once_and_only_if_it_is_of_the_session() -> None:
    parties = Parties(terms_for(6, rounds=3))
    set_up(parties, rounds=3, first_round=4)
    victim = parties.clients[VICTIM]
    vector = np.zeros(parties.terms.length, dtype=np.uint32)
    for round in (3, 7, 0):
        with refused(f"round {round} is not of this session, or was masked before"):
            victim.mask(round, vector)
    victim.mask(5, vector)
    masked = vector.copy()
    for round in (5, 4):
        with refused(f"round {round} is not of this session, or was masked before"):
            victim.mask(round, vector)
    assert np.array_equal(vector, masked)
    victim.mask(6, vector)
    assert not np.array_equal(vector, masked)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_vector_of_another_length_is_refused_and_left_alone(parties: Parties, change: int) -> None:
    set_up(parties)
    vector = np.zeros(parties.terms.length + change, dtype=np.uint32)
    with refused("the vector is not as long as agreed"):
        parties.clients[VICTIM].mask(1, vector)
    assert not vector.any()
    assert len(mask_all(parties)) == 6


def test_a_mask_key_of_low_order_is_refused_before_the_vector_is_touched(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    zero = KeyPair()
    zero.public = bytes(32)
    with monkeypatch.context() as patch:
        patch.setattr(RoundSecrets, "fresh", lambda: RoundSecrets(zero, bytes(32)))
        opening = open_session(parties.terms, parties.hospitals, 1, 1)
        corrupt = parties.clients[4].advertise(opening)
    sent = {h: corrupt if h == 4 else c.advertise(opening) for h, c in parties.clients.items()}
    session = share_all(parties, ShareStage(parties.terms, opening, sent))
    parties.clients[VICTIM].receive(session.deal(VICTIM))
    vector = np.zeros(parties.terms.length, dtype=np.uint32)
    with refused("no X25519 public key"):
        parties.clients[VICTIM].mask(1, vector)
    assert not vector.any()


# Stage 4: the list of survivors


def test_lists_of_survivors_that_contradict_what_the_hospital_saw_are_refused(parties: Parties) -> None:
    session = set_up(parties)
    mask_all(parties)
    true, victim = session.survivors(1, parties.hospitals).listed, parties.clients[VICTIM]
    lies = [
        ({"session": bytes(32)}, "of another session or round"),
        ({"round": 2}, "of another session or round"),
        ({"attempt": 2}, "of another session or round"),
        ({"uploaders": (0, 1, 2, 3, 4), "survivors": (0, 1, 2, 3, 4)}, "not the hospitals that shared"),
        ({"uploaders": (0, 1, 2, 3, 4, 5, 6)}, "not the hospitals that shared"),
        ({"uploaders": (5, 4, 3, 2, 1, 0)}, "not the hospitals that shared"),
        ({"survivors": (0, 1, 2, 3, 4, 6)}, "named twice or did not share"),
        ({"survivors": (0, 1, 2, 2, 3, 4, 5)}, "named twice or did not share"),
        ({"survivors": (5, 4, 3, 2, 1, 0)}, "named twice or did not share"),
        ({"survivors": (0, 1, 3, 4, 5)}, "this hospital uploaded and is not among the survivors"),
        ({"survivors": (0, 1, 2, 3)}, "only 4 survivors; fewer than 5 are not opened"),
        ({"survivors": (2,)}, "only 1 survivors; fewer than 5 are not opened"),
    ]
    for lie, reason in lies:
        with refused(reason):
            victim.sign(replace(true, **lie))
    signed = victim.sign(true)
    assert parties.directory.verify(VICTIM, signed.signature, true.statement(parties.terms, session.keys))


@pytest.mark.parametrize(("said", "least"), [(None, 5), (3, 5), (6, 6)])
def test_fewer_survivors_than_the_experiment_allows_are_not_signed(said: int | None, least: int) -> None:
    parties = Parties(terms_for(6, min_survivors=said))
    session = set_up(parties)
    mask_all(parties)
    listed = session.survivors(1, parties.hospitals).listed
    with refused(f"only {least - 1} survivors; fewer than {least} are not opened"):
        parties.clients[0].sign(replace(listed, survivors=tuple(range(least - 1))))
    parties.clients[0].sign(replace(listed, survivors=tuple(range(least))))


def test_a_hospital_signs_one_list_only(parties: Parties) -> None:
    session = set_up(parties)
    mask_all(parties)
    listed = session.survivors(1, parties.hospitals).listed
    parties.clients[VICTIM].sign(listed)
    for again in (listed, replace(listed, survivors=(0, 1, 2, 3, 4))):
        with refused("a message for the stage 'uploaded' came in the stage 'listed'"):
            parties.clients[VICTIM].sign(again)


# Stage 5: unmasking


@pytest.fixture
def unmasking(parties: Parties) -> UnmaskStage:
    """Hospital 5 dropped out before its upload; all others signed the list."""
    session = set_up(parties)
    return sign_all(parties, session, mask_all(parties, without=[5]))


def test_a_hospital_called_both_alive_and_dead_is_refused(parties: Parties, unmasking: UnmaskStage) -> None:
    request = unmasking.request(VICTIM)
    assert request.seeds_of == (0, 1, 2, 3, 4)
    assert request.keys_of == (5,)
    for both in (replace(request, keys_of=(0, 5)), replace(request, seeds_of=(*request.seeds_of, 5))):
        with refused("a hospital is called both alive and dead"):
            parties.clients[VICTIM].unmask(both)
    assert parties.clients[VICTIM].unmask(request)


def test_the_hospital_derives_itself_who_dropped_out(parties: Parties, unmasking: UnmaskStage) -> None:
    request = unmasking.request(VICTIM)
    for lie in (
        replace(request, seeds_of=(1, 2, 3, 4), keys_of=(0,)),
        replace(request, seeds_of=(5,), keys_of=()),
        replace(request, seeds_of=(), keys_of=(VICTIM,)),
    ):
        with refused("a seed of a hospital that dropped out, or a mask key of one that is alive"):
            parties.clients[VICTIM].unmask(lie)
    answer = parties.clients[VICTIM].unmask(request)
    assert [owner for owner, _ in answer.seeds] == [0, 1, 2, 3, 4]
    assert [owner for owner, _ in answer.keys] == [5]


def test_another_list_than_the_one_that_was_signed_is_refused(parties: Parties, unmasking: UnmaskStage) -> None:
    request = unmasking.request(VICTIM)
    for listed in (
        replace(request.survivors, survivors=(0, 1, 2, 3, 4, 5)),
        replace(request.survivors, round=2),
        replace(request.survivors, session=bytes(32)),
    ):
        with refused("the survivors are not those that were signed"):
            parties.clients[VICTIM].unmask(replace(request, survivors=listed))
    assert parties.clients[VICTIM].unmask(request)


def test_fewer_signatures_than_the_threshold_are_refused(parties: Parties, unmasking: UnmaskStage) -> None:
    request = unmasking.request(VICTIM)
    for number in range(5):
        with refused(f"only {number} neighbours signed this list of survivors, not 5"):
            parties.clients[VICTIM].unmask(replace(request, signatures=request.signatures[:number]))
    assert parties.clients[VICTIM].unmask(request)


def test_the_same_signature_repeated_counts_once(parties: Parties, unmasking: UnmaskStage) -> None:
    request = unmasking.request(VICTIM)
    one = request.signatures[0]
    posing = [replace(one, hospital=other) for other in parties.hospitals]
    for lie in ((one,) * 9, (*request.signatures[:4], one), tuple(posing)):
        number = len({signed.signature for signed in lie})
        with refused(f"only {number} neighbours signed"):
            parties.clients[VICTIM].unmask(replace(request, signatures=lie))


def test_signatures_over_another_list_do_not_count(parties: Parties) -> None:
    session = set_up(parties)
    mask_all(parties)
    whole = session.survivors(1, parties.hospitals).listed
    smaller = replace(whole, survivors=(0, 1, 2, 3, 4))
    own = parties.clients[VICTIM].sign(whole)
    others = [parties.clients[h].sign(smaller) for h in (0, 1, 3, 4)]
    request = UnmaskStage(session, whole, {s.hospital: s for s in (own, *others)}).request(VICTIM)
    assert len(request.signatures) == 5
    with refused("only 1 neighbours signed this list of survivors, not 5"):
        parties.clients[VICTIM].unmask(request)


def test_signatures_by_fresh_identities_do_not_count(parties: Parties, unmasking: UnmaskStage) -> None:
    request = unmasking.request(VICTIM)
    statement = request.survivors.statement(parties.terms, unmasking.session.keys)
    forged = tuple(
        signed if signed.hospital == VICTIM else replace(signed, signature=Identity().sign(statement))
        for signed in request.signatures
    )
    with refused("only 1 neighbours signed this list of survivors, not 5"):
        parties.clients[VICTIM].unmask(replace(request, signatures=forged))


def test_signatures_of_hospitals_that_are_no_survivors_do_not_count(
    parties: Parties, unmasking: UnmaskStage
) -> None:
    request = unmasking.request(VICTIM)
    statement = request.survivors.statement(parties.terms, unmasking.session.keys)
    dead = Signed(5, request.survivors.session, 1, 1, parties.identities[5].sign(statement))
    with refused("only 4 neighbours signed this list of survivors, not 5"):
        parties.clients[VICTIM].unmask(replace(request, signatures=(*request.signatures[:4], dead)))


def test_signatures_of_an_earlier_round_do_not_count_again() -> None:
    parties = Parties(terms_for(6, rounds=2))
    session = set_up(parties, rounds=2)
    mask_all(parties, 1)
    first = sign_all(parties, session, parties.hospitals, 1).request(VICTIM)
    mask_all(parties, 2)
    second = sign_all(parties, session, parties.hospitals, 2).request(VICTIM)
    with refused("only 0 neighbours signed"):
        parties.clients[VICTIM].unmask(replace(second, signatures=first.signatures))
    assert parties.clients[VICTIM].unmask(second).round == 2


def ring_of(parties: Parties, unmasking: UnmaskStage) -> tuple[list[int], list[int]]:
    """The victim's neighbours, and those that are no neighbours."""
    neighbours = list(unmasking.session.graph.neighbours(VICTIM))
    return neighbours, [h for h in parties.hospitals if h not in (VICTIM, *neighbours)]


@pytest.fixture
def ring() -> tuple[Parties, UnmaskStage]:
    """Sixteen hospitals by the rule: degree 4, threshold 3; all signed."""
    parties = Parties(terms_for(choose(16, Assumption())))
    session = set_up(parties)
    return parties, sign_all(parties, session, mask_all(parties))


def test_shares_outside_the_neighbours_are_refused(ring: tuple[Parties, UnmaskStage]) -> None:
    parties, unmasking = ring
    request = unmasking.request(VICTIM)
    _, strangers = ring_of(parties, unmasking)
    assert set(request.seeds_of) == set(unmasking.session.graph.neighbours(VICTIM))
    for outside in (strangers[0], VICTIM, 99):
        for lie in (replace(request, seeds_of=(outside,)), replace(request, seeds_of=(), keys_of=(outside,))):
            with refused("a share outside this hospital's neighbours"):
                parties.clients[VICTIM].unmask(lie)
    assert parties.clients[VICTIM].unmask(request)


def test_signatures_from_beyond_the_neighbours_and_its_own_do_not_count_on_a_ring(
    ring: tuple[Parties, UnmaskStage],
) -> None:
    parties, unmasking = ring
    neighbours, strangers = ring_of(parties, unmasking)
    request = unmasking.request(VICTIM)
    far = [unmasking.signed[h] for h in (VICTIM, *strangers)]
    near = [unmasking.signed[h] for h in neighbours]
    for number in range(3):
        with refused(f"only {number} neighbours signed this list of survivors, not 3"):
            parties.clients[VICTIM].unmask(replace(request, signatures=(*far, *near[:number])))
    assert parties.clients[VICTIM].unmask(replace(request, signatures=tuple(near[:3])))


def test_it_never_answers_twice(parties: Parties, unmasking: UnmaskStage) -> None:
    request = unmasking.request(VICTIM)
    parties.clients[VICTIM].unmask(request)
    with refused("a message for the stage 'listed' came in the stage 'no round'"):
        parties.clients[VICTIM].unmask(request)


def test_once_it_answered_it_refuses_every_later_attempt_at_the_round(
    parties: Parties, unmasking: UnmaskStage
) -> None:
    victim = parties.clients[VICTIM]
    victim.unmask(unmasking.request(VICTIM))
    for attempt in (1, 2, 7):
        with refused("round 1 was opened before"):
            victim.advertise(open_session(parties.terms, parties.hospitals, 1, 1, attempt))
    victim.advertise(open_session(parties.terms, parties.hospitals, 2, 1))


def test_an_attempt_whose_set_up_is_older_than_the_answer_is_refused_at_masking(parties: Parties) -> None:
    set_up(parties, attempt=2)
    victim = parties.clients[VICTIM]
    victim.me.answered.add(1)
    vector = np.zeros(parties.terms.length, dtype=np.uint32)
    with refused("round 1 was opened before"):
        victim.mask(1, vector)
    assert not vector.any()


def test_a_session_over_several_rounds_is_refused_if_one_of_them_was_answered() -> None:
    parties = Parties(terms_for(6, rounds=3))
    parties.clients[VICTIM].me.answered.add(5)
    for first in (3, 4, 5):
        with refused("round 5 was opened before"):
            parties.clients[VICTIM].advertise(open_session(parties.terms, parties.hospitals, first, 3))
    parties.clients[VICTIM].advertise(open_session(parties.terms, parties.hospitals, 6, 3))


def answer_round(parties: Parties, round: int = 1) -> None:
    session = set_up(parties, first_round=round)
    unmasking = sign_all(parties, session, mask_all(parties, round), round)
    parties.clients[VICTIM].unmask(unmasking.request(VICTIM))


def test_it_refuses_later_attempts_after_a_restart_too(tmp_path: Path) -> None:
    parties = Parties(terms_for(6), tmp_path)
    answer_round(parties)
    restarted = parties.restart(VICTIM)
    with refused("round 1 was opened before"):
        restarted.advertise(open_session(parties.terms, parties.hospitals, 1, 1, attempt=2))
    restarted.advertise(open_session(parties.terms, parties.hospitals, 2, 1))


@pytest.mark.parametrize("torn", ["\n", "\n1", "\n12"])
def test_it_refuses_them_after_a_crash_that_cut_off_the_last_line(tmp_path: Path, torn: str) -> None:
    parties = Parties(terms_for(6), tmp_path)
    answer_round(parties, 7)
    with (tmp_path / str(VICTIM) / "answered.txt").open("a") as file:
        file.write(torn)
    parties.restart(VICTIM)
    answer_round(parties, 30)
    restarted = parties.restart(VICTIM)
    for round in (7, 30):
        with refused(f"round {round} was opened before"):
            restarted.advertise(open_session(parties.terms, parties.hospitals, round, 1, attempt=2))
    restarted.advertise(open_session(parties.terms, parties.hospitals, 31, 1))


@pytest.mark.parametrize("broken", ["open", "fsync"])
def test_where_the_note_cannot_be_written_nothing_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    parties = Parties(terms_for(6), tmp_path)
    session = set_up(parties)
    request = sign_all(parties, session, mask_all(parties)).request(VICTIM)
    answers: list[Any] = []

    def fail(*_: Any) -> int:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, fail)
        with pytest.raises(OSError, match="no space left"):
            answers.append(parties.clients[VICTIM].unmask(request))
    assert answers == []
    assert parties.clients[VICTIM].unmask(request).hospital == VICTIM


def test_the_note_is_on_disk_before_the_answer_is_even_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parties = Parties(terms_for(6), tmp_path)
    session = set_up(parties)
    request = sign_all(parties, session, mask_all(parties)).request(VICTIM)
    events: list[str] = []
    synced, answer = os.fsync, client_module.Answer
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced(descriptor), events.append("synced"))[0])
    monkeypatch.setattr(client_module, "Answer", lambda **fields: (events.append("answered"), answer(**fields))[1])
    parties.clients[VICTIM].unmask(request)
    assert events == ["synced", "answered"]
    assert (tmp_path / str(VICTIM) / "answered.txt").read_text().split()[0] == "1"


def test_a_refused_request_leaves_no_note(parties: Parties, unmasking: UnmaskStage) -> None:
    victim = parties.clients[VICTIM]
    with refused("only 0 neighbours signed"):
        victim.unmask(replace(unmasking.request(VICTIM), signatures=()))
    assert 1 not in victim.me.answered


# Stages out of their order, and books that differ


METHODS = ("advertise", "share_keys", "receive", "mask", "sign", "unmask")


def test_a_stage_that_is_repeated_left_out_or_early_is_refused_everywhere() -> None:
    """At each stage every message of another stage is tried, of an earlier session and of the present one."""
    parties = Parties(terms_for(6, rounds=1))
    victim = parties.clients[VICTIM]
    old: dict[str, Any] = {}

    def session(round: int) -> None:
        def tried(due: str, message: Any) -> Any:
            for method in METHODS[1:]:
                if method != due and method in old:
                    with refused("came in the stage|was masked before"):
                        call(method, old[method])
            done = call(due, message)
            old[due] = message
            if due != "advertise":
                with refused("came in the stage|was masked before"):
                    call(due, message)
            return done

        def call(method: str, message: Any) -> Any:
            if method == "mask":
                return victim.mask(message, np.zeros(parties.terms.length, dtype=np.uint32))
            return getattr(victim, method)(message)

        others = {h: c for h, c in parties.clients.items() if h != VICTIM}
        opening = open_session(parties.terms, parties.hospitals, round, 1)
        sent = {h: c.advertise(opening) for h, c in others.items()}
        sent[VICTIM] = tried("advertise", opening)
        stage = ShareStage(parties.terms, opening, dict(sorted(sent.items())))
        for hospital, client in others.items():
            stage.add(hospital, client.share_keys(stage.book(hospital)))
        stage.add(VICTIM, tried("share_keys", stage.book(VICTIM)))
        ready = stage.close()
        for hospital, client in others.items():
            client.receive(ready.deal(hospital))
        tried("receive", ready.deal(VICTIM))
        for client in others.values():
            client.mask(round, np.zeros(parties.terms.length, dtype=np.uint32))
        tried("mask", round)
        signing = ready.survivors(round, parties.hospitals)
        for client in others.values():
            signing.add(client.sign(signing.listed))
        signing.add(tried("sign", signing.listed))
        tried("unmask", signing.close().request(VICTIM))

    session(1)
    assert set(old) == set(METHODS)
    session(2)


def test_before_any_session_every_message_but_an_opening_is_refused(parties: Parties) -> None:
    session = set_up(parties)
    messages = {"share_keys": None, "receive": session.deal(VICTIM), "sign": None, "unmask": None}
    fresh = parties.restart(VICTIM)
    for method, message in messages.items():
        with refused("came in the stage '(enrolled|no round)'"):
            getattr(fresh, method)(message)


def test_a_new_session_ends_the_one_before_it(parties: Parties) -> None:
    session = set_up(parties)
    mask_all(parties)
    advertise_all(parties, attempt=2)
    with refused("came in the stage 'no round'"):
        parties.clients[VICTIM].sign(session.survivors(1, parties.hospitals).listed)
    with refused("a message for the stage 'ready' came in the stage 'advertised'"):
        parties.clients[VICTIM].mask(1, np.zeros(parties.terms.length, dtype=np.uint32))


def told_of(stage: ShareStage, hospital: int, known: set[int]) -> KeyBook:
    """A hospital's book if some had advertised nothing."""
    book = stage.book(hospital)
    return replace(
        book,
        statements=tuple(said for said in book.statements if said[0] in known),
        neighbours=tuple(sent for sent in book.neighbours if sent.hospital in known),
    )


@pytest.mark.parametrize("split", [1, 2, 3])
def test_hospitals_that_were_shown_different_keys_do_not_sign_the_same_list(split: int) -> None:
    """Some are told that hospital 5 advertised nothing; then nobody finds enough signatures under one list."""
    parties = Parties(terms_for(6))
    stage = advertise_all(parties)
    misled = {0, 1, 2} if split == 3 else set(range(split))
    known = set(range(5))
    for hospital, client in parties.clients.items():
        shown = told_of(stage, hospital, known) if hospital in misled else stage.book(hospital)
        sent = client.share_keys(shown)
        if hospital not in misled:
            stage.add(hospital, sent)
        else:
            stage._sealed[hospital] = sent
    session = stage.close()
    for hospital, client in parties.clients.items():
        deal, sharers = session.deal(hospital), tuple(known)
        sealed = tuple(message for message in deal.sealed if message.sender in known)
        if hospital == 5:
            continue
        client.receive(replace(deal, sharers=sharers, sealed=sealed))
    for hospital in known:
        parties.clients[hospital].mask(1, np.zeros(parties.terms.length, dtype=np.uint32))
    listed = replace(session.survivors(1, known).listed, uploaders=tuple(known), survivors=tuple(known))
    signed = {h: parties.clients[h].sign(listed) for h in known}
    unmasking = UnmaskStage(session, listed, signed)
    for hospital in known:
        alike = len(misled) if hospital in misled else 5 - len(misled)
        with refused(f"only {alike} neighbours signed this list of survivors, not 5"):
            parties.clients[hospital].unmask(unmasking.request(hospital))
