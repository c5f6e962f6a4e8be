from __future__ import annotations

from dataclasses import is_dataclass, replace
from typing import Any

import pytest

from lightning_fed.secagg import messages
from lightning_fed.secagg.client import RoundSecrets
from lightning_fed.secagg.keys import Identity, KeyPair
from lightning_fed.secagg.messages import (
    Advertisement,
    Survivors,
    Terms,
    digest,
    keys_digest,
    seed_commitment,
)
from lightning_fed.secagg.parameters import Parameters
from lightning_fed.secagg.quantise import Encoding
from tests.secagg.parties import Parties, advertise_all, mask_all, share_all, sign_all, terms_for

TERMS = Terms(Parameters(10, 4, 4), Encoding(10, 1.0, 16, 100), 9, 5, 3)
LISTED = Survivors(b"s" * 32, 3, 1, (0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 4))
SENT = Advertisement(3, b"s" * 32, 1, b"n" * 16, b"k" * 32, (b"m" * 32, b"o" * 32), (b"c" * 32, b"d" * 32))


@pytest.mark.parametrize(
    "change",
    [
        {"session": b"t" * 32},
        {"round": 4},
        {"attempt": 2},
        {"uploaders": (0, 1, 2, 3, 4)},
        {"uploaders": (0, 1, 2, 3, 4, 6)},
        {"uploaders": (0, 1, 2, 3, 5, 4)},
        {"survivors": (0, 1, 2, 3)},
        {"survivors": (0, 1, 2, 4, 3)},
        {"uploaders": (0, 1, 2, 3, 4), "survivors": (5, 0, 1, 2, 3, 4)},
    ],
    ids=str,
)
def test_what_a_survivor_signs_changes_with_everything_in_the_list(change: dict[str, Any]) -> None:
    assert replace(LISTED, **change).statement(TERMS, b"k") != LISTED.statement(TERMS, b"k")


@pytest.mark.parametrize(
    "terms",
    [
        replace(TERMS, length=10),
        replace(TERMS, min_survivors=6),
        replace(TERMS, least_advertised=9),
        replace(TERMS, parameters=Parameters(10, 6, 4)),
        replace(TERMS, parameters=Parameters(10, 4, 3)),
        replace(TERMS, encoding=Encoding(10, 1.0000001, 16, 100)),
        replace(TERMS, encoding=Encoding(10, 1.0, 17, 100)),
        replace(TERMS, encoding=Encoding(10, 1.0, 16, 101)),
        replace(TERMS, encoding=Encoding(300, 1.0, 16, 100)),
    ],
    ids=str,
)
def test_what_a_survivor_signs_changes_with_its_terms(terms: Terms) -> None:
    assert LISTED.statement(terms, b"k") != LISTED.statement(TERMS, b"k")


def test_what_a_survivor_signs_changes_with_the_keys_that_it_saw() -> None:
    assert LISTED.statement(TERMS, b"k") == LISTED.statement(TERMS, b"k")
    assert LISTED.statement(TERMS, b"k") != LISTED.statement(TERMS, b"l")


@pytest.mark.parametrize(
    "change",
    [
        {"hospital": 4},
        {"session": b"t" * 32},
        {"attempt": 2},
        {"nonce": b"o" * 16},
        {"sealing_key": b"l" * 32},
        {"mask_keys": (b"m" * 32, b"p" * 32)},
        {"mask_keys": (b"o" * 32, b"m" * 32)},
        {"commitments": (b"c" * 32, b"e" * 32)},
        {"mask_keys": (b"m" * 32,), "commitments": (b"o" * 32, b"c" * 32, b"d" * 32)},
    ],
    ids=str,
)
def test_what_a_hospital_signs_of_its_keys_changes_with_each_of_them(change: dict[str, Any]) -> None:
    assert replace(SENT, **change).statement != SENT.statement
    assert replace(SENT, signature=b"x").statement == SENT.statement


def test_parts_of_a_digest_do_not_run_together() -> None:
    lists = [("ab", "c"), ("a", "bc"), ("abc",), ("ab", "c", ""), ("", "ab", "c"), (12, 3), (1, 23), (123,)]
    assert len({digest(*parts) for parts in lists}) == len(lists)


def test_the_digest_of_the_keys_tells_who_signed_what_in_which_session() -> None:
    statements = [((0, b"a"), (1, b"b")), ((0, b"b"), (1, b"a")), ((0, b"a"),), ((0, b"a"), (2, b"b")), ()]
    digests = {keys_digest(session, one) for one in statements for session in (b"s", b"t")}
    assert len(digests) == 10


def test_a_commitment_is_to_one_seed_of_one_hospital_in_one_round() -> None:
    start = (b"s" * 32, 3, 4, b"seed" * 8)
    changes = [(b"t" * 32, 3, 4, start[3]), (b"s" * 32, 4, 4, start[3]), (b"s" * 32, 3, 5, start[3])]
    changes += [(b"s" * 32, 3, 4, b"sead" * 8), (b"s" * 32, 34, 4, start[3])]
    assert seed_commitment(*start) not in {seed_commitment(*change) for change in changes}


@pytest.mark.parametrize(("asked", "threshold", "least"), [(1, 4, 4), (7, 4, 7), (1, 2, 3)])
def test_a_sum_of_fewer_than_the_threshold_or_of_two_is_never_opened(
    asked: int, threshold: int, least: int
) -> None:
    assert Terms(Parameters(10, 9, threshold), TERMS.encoding, 9, asked).least_survivors == least


def test_no_message_can_be_changed() -> None:
    kinds = [
        kind for kind in vars(messages).values() if is_dataclass(kind) and kind.__module__ == messages.__name__
    ]
    assert len(kinds) == 10
    assert all(kind.__dataclass_params__.frozen for kind in kinds)


def everything_secret(parties: Parties) -> set[str]:
    """All secrets of all hospitals of a session that is ready, in the ways in which they could be printed."""
    found: set[str] = set()
    for one in parties.clients.values():
        ready: Any = one._session
        secrets = [parties.identities[one.me.hospital]._secret]
        for of_round in ready.secrets.values():
            secrets += [of_round.seed, of_round.mask_key.secret]
        found |= {text for secret in secrets for text in (secret.hex(), repr(secret)[2:-1])}
        shares = [share for held in ready.held.values() for pair in held.values() for share in pair]
        found |= {text for share in shares for text in (str(share), f"{share:x}")}
    return found


def test_nothing_prints_a_secret() -> None:
    parties = Parties(terms_for(4, rounds=2))
    stage = advertise_all(parties, rounds=2)
    states = [one._session for one in parties.clients.values()]
    session = share_all(parties, stage)
    states += [one._session for one in parties.clients.values()]
    for hospital, one in parties.clients.items():
        one.receive(session.deal(hospital))
    secrets = everything_secret(parties)
    assert len(secrets) > 50
    states += [one._session for one in parties.clients.values()]
    mask_all(parties)
    states += [one._round for one in parties.clients.values()]
    unmasking = sign_all(parties, session, parties.hospitals)
    for hospital in unmasking.asked:
        answer = parties.clients[hospital].unmask(unmasking.request(hospital))
        unmasking.add(answer)
        states.append(answer)
    opened = unmasking.close()
    states += [opened, *opened.masks, RoundSecrets.fresh(), *parties.clients.values(), session, unmasking]
    states += [one.me for one in parties.clients.values()]
    printed = "\n".join(map(repr, states))
    assert "Answer(hospital=0" in printed
    assert not [secret for secret in secrets if secret in printed]


@pytest.mark.parametrize(
    "secret", [Identity(b"i" * 32), KeyPair(b"i" * 32), RoundSecrets(KeyPair(b"i" * 32), b"i" * 32)]
)
def test_a_key_prints_as_its_public_part(secret: object) -> None:
    assert "i" * 32 not in repr(secret)
    assert (b"i" * 32).hex() not in repr(secret)
