"""A server that is honest until the keys are out, then lies about who shared and who is alive (Bell et al. 2020).

The hospitals are sixteen with the rule's ring: degree 4, threshold 3, one of them corrupt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from lightning_fed.secagg import client
from lightning_fed.secagg.client import Listed
from lightning_fed.secagg.errors import ProtocolError
from lightning_fed.secagg.keys import KeyPair
from lightning_fed.secagg.messages import Answer, Signed, Survivors, UnmaskRequest
from lightning_fed.secagg.parameters import Assumption, choose
from lightning_fed.secagg.server import Session
from tests.secagg.parties import Opened, Parties, advertise_all, share_all, terms_for


@dataclass
class Lies:
    """A session whose server tells each hospital what it likes.

    Args:
        parties: all hospitals. session: up to the sealed shares, honest. corrupt: a hospital whose secrets and
            signing key the server has.
    """

    parties: Parties
    session: Session
    corrupt: int

    @staticmethod
    def on_a_ring() -> Lies:
        """The corrupt hospital stands at place 1."""
        parties = Parties(terms_for(choose(16, Assumption())))
        session = share_all(parties, advertise_all(parties))
        lies = Lies(parties, session, -1)
        lies.corrupt = lies.at(1)
        return lies

    def at(self, place: int) -> int:
        """The hospital at a place of the ring."""
        return self.session.graph._ring[place % 16]

    def deal(self, sharers: Mapping[int, Sequence[int]]) -> None:
        """Tell each hospital who shared."""
        for hospital, told in sharers.items():
            deal = self.session.deal(hospital)
            sealed = tuple(message for message in deal.sealed if message.sender in told)
            self.parties.clients[hospital].receive(replace(deal, sharers=tuple(sorted(told)), sealed=sealed))

    def steal(self) -> tuple[dict[int, tuple[int, int]], KeyPair]:
        """What the corrupt hospital has once it is ready: shares of others by owner, and its mask key."""
        accomplice: Any = self.parties.clients[self.corrupt]._session
        return accomplice.held[1], accomplice.secrets[1].mask_key

    def sign(self, listed: Survivors, group: Sequence[int]) -> tuple[Signed, ...]:
        """The group's signatures under a list, and the corrupt hospital's."""
        signed = [self.parties.clients[hospital].sign(listed) for hospital in group if hospital != self.corrupt]
        statement = listed.statement(self.parties.terms, self.session.keys)
        forged = self.parties.identities[self.corrupt].sign(statement)
        return (*signed, Signed(self.corrupt, listed.session, listed.round, listed.attempt, forged))

    def ask(self, hospital: int, request: UnmaskRequest) -> Answer | None:
        """A hospital's answer, unless it refuses."""
        try:
            return self.parties.clients[hospital].unmask(request)
        except ProtocolError:
            return None


def two_quorums(lies: Lies) -> bool:
    """Whether one hospital's vector comes out between two groups that are told of two lists.

    The first is to open the victim's own mask, the second the mask keys of the two honest neighbours that it
    masks with; a third neighbour is said not to have shared.
    """
    parties, session, at = lies.parties, lies.session, lies.at
    victim, left, right, hidden = at(0), at(-1), at(2), at(-2)
    first = [victim, lies.corrupt, left, right]
    second = [at(place) for place in (-5, -4, -3, -2, 3, 4, 5, 6)]
    fewer = tuple(hospital for hospital in session.sharers if hospital != hidden)
    lies.deal({hospital: fewer if hospital in first else session.sharers for hospital in parties.hospitals})
    held, mask_key = lies.steal()
    vectors = parties.vectors()
    masked = {hospital: vectors[hospital].copy() for hospital in (*first, *second)}
    for hospital, vector in masked.items():
        parties.clients[hospital].mask(1, vector)
    whole = session.survivors(1, session.sharers).listed
    alive = replace(whole, uploaders=fewer, survivors=tuple(sorted(first)))
    dead = replace(whole, survivors=tuple(h for h in session.sharers if h not in (left, right)))
    of_alive, of_dead = lies.sign(alive, first), lies.sign(dead, second)

    opened = Opened(parties.terms, session, {(victim, 1): {lies.corrupt: held[victim][0]}}, {}, {})
    opened.learn(mask_key)
    for hospital in (left, right):
        if (answer := lies.ask(hospital, UnmaskRequest(alive, of_alive, (victim,), ()))) is not None:
            opened.seeds[victim, 1][hospital] = answer.seeds[0][1]
    for owner, places in ((left, (-3, -2)), (right, (3, 4))):
        shares = {lies.corrupt: held[owner][1]}
        for place in places:
            if (answer := lies.ask(at(place), UnmaskRequest(dead, of_dead, (), (owner,)))) is not None:
                shares[answer.hospital] = answer.keys[0][1]
        if (secret := opened.rebuild(shares)) is not None:
            opened.learn(KeyPair(secret))
    return np.array_equal(opened.peel(masked[victim], victim, 1, [left, right, lies.corrupt]), vectors[victim])


def no_neighbours(lies: Lies) -> bool:
    """Whether a hospital's vector comes out that is told that none of its neighbours shared, against the truth."""
    parties, session, victim = lies.parties, lies.session, lies.at(0)
    near = session.graph.neighbours(victim)
    with suppress(ProtocolError):
        lies.deal({victim: tuple(hospital for hospital in session.sharers if hospital not in near)})
    others = [hospital for hospital in parties.hospitals if hospital != victim]
    lies.deal(dict.fromkeys(others, session.sharers))
    vectors = parties.vectors()
    masked = parties.upload(1, vectors, session)
    if victim not in masked:
        return False
    signing = session.survivors(1, masked)
    for hospital in others:
        signing.add(parties.clients[hospital].sign(signing.listed))
    unmasking = signing.close()
    parties.ask("unmask", {hospital: unmasking.request(hospital) for hospital in unmasking.asked})
    opened = Opened.from_transcript(parties.terms, session, parties.transcript)
    return np.array_equal(opened.peel(masked[victim], victim, 1, []), vectors[victim])


def without_refusing(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hospitals that let one thing pass."""
    refuse_unless = client.refuse_unless
    monkeypatch.setattr(client, "refuse_unless", lambda fits, why: refuse_unless(fits or reason in why, why))


ATTACKS: dict[str, tuple[Callable[[Lies], bool], str]] = {
    "two quorums": (two_quorums, "neighbours signed this list"),
    "no neighbours": (no_neighbours, "neighbours shared their secrets"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_on_one_hospital_of_the_ring_fails(name: str) -> None:
    attack, _ = ATTACKS[name]
    assert not attack(Lies.on_a_ring())


@pytest.mark.parametrize("name", ATTACKS)
def test_it_works_on_hospitals_that_do_not_refuse_what_it_needs(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack, reason = ATTACKS[name]
    without_refusing(reason, monkeypatch)
    assert attack(Lies.on_a_ring())


def test_the_attack_by_two_quorums_works_where_a_hospitals_own_signature_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def counting_its_own(self: Listed, request: UnmaskRequest) -> None:
        session = self.before.session
        near = {*session.graph.neighbours(session.me.hospital), session.me.hospital}
        signers = {
            signed.hospital
            for signed in request.signatures
            if signed.hospital in near & set(self.survivors.survivors)
            and session.me.directory.verify(signed.hospital, signed.signature, self.statement)
        }
        if len(signers) < session.me.terms.parameters.threshold:
            raise ProtocolError("too few")

    monkeypatch.setattr(Listed, "_check_signatures", counting_its_own)
    assert two_quorums(Lies.on_a_ring())
