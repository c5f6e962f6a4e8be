from __future__ import annotations

import pickle
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_fed.secagg.conductor import STAGES
from lightning_fed.secagg.errors import RoundAbortedError
from lightning_fed.secagg.parameters import Assumption, Parameters, choose, complete_graph
from lightning_fed.secagg.quantise import Encoding
from lightning_fed.secagg.server import Session
from tests.secagg.parties import NEVER, UPLOAD, Opened, Parties, terms_for

Pattern = tuple[int, ...]


def staying(pattern: Pattern, stage: int) -> list[int]:
    """The hospitals that are still there after a stage."""
    return [hospital for hospital, leaves in enumerate(pattern) if leaves > stage]


def opens(parties: Parties, pattern: Pattern) -> bool:
    """Whether a complete graph's round must open, by counting alone."""
    terms = parties.terms
    threshold, least = terms.parameters.threshold, terms.least_survivors
    enough_uploads = len(staying(pattern, UPLOAD)) >= least
    return enough_uploads and len(staying(pattern, STAGES.index("at_unmasking"))) >= threshold


def play(parameters: Parameters, pattern: Pattern, seed: int = 0) -> bool:
    """One round with hospitals that drop out; whether it opened.

    What opens is the survivors' sum bit for bit; where nothing opens, no secret has enough shares.
    """
    parties = Parties(terms_for(parameters))
    parties.dropping = dict(enumerate(pattern))
    vectors = parties.vectors(seed)
    session = None
    try:
        session = parties.conductor.set_up(parties.hospitals, 1)
        unmasking, total = parties.open(session, 1, parties.upload(1, vectors, session))
    except RoundAbortedError:
        opened = False
        if session is not None:
            shares = Opened.from_transcript(parties.terms, session, parties.transcript)
            most = max((len(held) for held in (*shares.seeds.values(), *shares.keys.values())), default=0)
            assert most < parameters.threshold
    else:
        opened = True
        survivors = staying(pattern, UPLOAD)
        assert unmasking.survivors == tuple(survivors)
        assert total.tolist() == parties.total(vectors, survivors)
        assert parties.conductor.lost == {
            hospital: STAGES[leaves] for hospital, leaves in enumerate(pattern) if leaves < NEVER
        }
    assert parties.conductor.refusals == []
    assert opened == opens(parties, pattern), pattern
    return opened


@pytest.mark.parametrize("hospitals", [4, 5, 6])
def test_the_survivors_sum_opens_or_the_round_aborts_whoever_drops_out_where(hospitals: int) -> None:
    draw = random.Random(hospitals)
    outcomes: Counter[bool] = Counter()
    for number in range(150):
        mostly_there = [*range(NEVER), *[NEVER] * (3 * (number % 5))]
        pattern = tuple(draw.choice(mostly_there) for _ in range(hospitals))
        threshold = draw.randint(2, hospitals) if number % 2 else complete_graph(hospitals).threshold
        outcomes[play(Parameters(hospitals, hospitals - 1, threshold), pattern, number)] += 1
    assert min(outcomes[True], outcomes[False]) >= 20


@pytest.mark.parametrize("stage", range(NEVER))
def test_as_many_as_the_threshold_allows_may_drop_out_at_a_stage_and_not_one_more(stage: int) -> None:
    parameters = complete_graph(6)
    assert parameters.threshold == 5
    assert play(parameters, (NEVER, NEVER, stage, NEVER, NEVER, NEVER))
    assert not play(parameters, (NEVER, NEVER, stage, NEVER, NEVER, stage))


class Forecast:
    """Who answers what in a session on any graph, worked out from the graph and the dropouts alone."""

    def __init__(self, parties: Parties, session: Session) -> None:
        self.parties, self.session = parties, session
        self.threshold = parties.terms.parameters.threshold

    def holders(self, hospital: int, among: set[int]) -> set[int]:
        return set(self.session.graph.holders(hospital)) & among

    def sound(self, hospital: int, among: set[int]) -> bool:
        """Whether enough of its share holders are among these."""
        return len(self.holders(hospital, among)) >= self.threshold

    def uploads(self) -> set[int]:
        sharers = set(self.session.sharers)
        return {h for h in sharers if not self.parties.gone(h, UPLOAD) and self.sound(h, sharers)}

    def opens(self) -> bool:
        sharers, alive = set(self.session.sharers), self.uploads()
        signed = {h for h in alive if not self.parties.gone(h, STAGES.index("after_masked_input"))}
        if len(alive) < self.parties.terms.least_survivors or len(signed) < self.threshold:
            return False
        answers = {
            h for h in signed if not self.parties.gone(h, STAGES.index("at_unmasking")) and self.sound(h, signed)
        }
        needed = alive | {h for h in sharers - alive if set(self.session.graph.neighbours(h)) & alive}
        return all(self.sound(owner, answers) for owner in needed)


@st.composite
def federations(draw: st.DrawFn) -> Parties:
    """Any number of hospitals, degree, threshold, vector length and ring, with dropouts at any stage."""
    hospitals = draw(st.integers(3, 12) | st.integers(13, 60))
    degree = 2 * draw(st.integers(1, min((hospitals - 1) // 2, 8)))
    if draw(st.booleans()) and hospitals <= 30:
        degree = hospitals - 1
    plan = Parameters(hospitals, degree, 2)
    threshold = draw(st.integers(2, max(2, plan.holders - draw(st.integers(0, 3)))))
    bits = draw(st.integers(4, 32 - hospitals.bit_length()))
    terms = terms_for(
        Parameters(hospitals, degree, min(threshold, plan.holders)),
        length=draw(st.integers(1, 40)),
        bits=bits,
        min_survivors=draw(st.none() | st.integers(1, hospitals)),
    )
    parties = Parties(terms)
    rate = draw(st.sampled_from([0.0, 0.05, 0.2, 0.5]))
    dice = draw(st.randoms(use_true_random=False))
    parties.dropping = {h: dice.randrange(NEVER) for h in parties.hospitals if dice.random() < rate}
    return parties


@settings(max_examples=60)
@given(parties=federations(), shards=st.integers(1, 5), seed=st.integers(0, 999))
def test_any_federation_opens_its_survivors_sum_or_aborts_as_the_graph_says(
    parties: Parties, shards: int, seed: int
) -> None:
    vectors, session, forecast = parties.vectors(seed), None, None
    try:
        session = parties.conductor.set_up(parties.hospitals, 1)
        forecast = Forecast(parties, session)
        unmasking, total = parties.open(session, 1, parties.upload(1, vectors, session), shards)
    except RoundAbortedError:
        if session is None:
            least = parties.terms.least_survivors
            assert sum(not parties.gone(h, STAGES.index("after_keys")) for h in parties.hospitals) < least
        else:
            assert forecast is not None
            assert not forecast.opens()
    else:
        assert forecast.opens()
        assert set(unmasking.survivors) == forecast.uploads()
        assert total.tolist() == parties.total(vectors, unmasking.survivors)


@pytest.mark.parametrize(("hospitals", "times"), [(16, 8), (40, 2)])
def test_rings_by_the_rule_open_through_a_tenth_of_dropouts(hospitals: int, times: int) -> None:
    for seed in range(times):
        parties = Parties(terms_for(choose(hospitals, Assumption())))
        dice = random.Random(seed)
        dropping = dice.sample(parties.hospitals, hospitals // 10)
        parties.dropping = {h: dice.randrange(NEVER) for h in dropping}
        vectors = parties.vectors(seed)
        session = parties.conductor.set_up(parties.hospitals, 1)
        unmasking, total = parties.open(session, 1, parties.upload(1, vectors, session), shards=2)
        assert set(unmasking.survivors) >= set(parties.hospitals) - set(dropping)
        assert total.tolist() == parties.total(vectors, unmasking.survivors)


def test_several_rounds_of_one_set_up_open_whoever_is_there_in_each() -> None:
    parties = Parties(terms_for(6, rounds=4))
    session = parties.conductor.set_up(parties.hospitals, 5, rounds=4)
    asked_for_keys = len(parties.transcript)
    for round, missing in [(5, None), (6, 2), (7, 5), (8, 2)]:
        parties.dropping = {} if missing is None else {missing: UPLOAD}
        vectors = parties.vectors(round)
        unmasking, total = parties.open(session, round, parties.upload(round, vectors, session), shards=2)
        assert unmasking.survivors == tuple(h for h in parties.hospitals if h != missing)
        assert total.tolist() == parties.total(vectors, unmasking.survivors)
    assert {exchange.method for exchange in parties.transcript[asked_for_keys:]} == {"sign", "unmask"}


def test_a_round_that_was_left_out_does_not_stop_the_next() -> None:
    parties = Parties(terms_for(4, rounds=3))
    session = parties.conductor.set_up(parties.hospitals, 1, rounds=3)
    for round in (1, 3):
        vectors = parties.vectors(round)
        _, total = parties.open(session, round, parties.upload(round, vectors, session))
        assert total.tolist() == parties.total(vectors, parties.hospitals)
    assert parties.upload(2, parties.vectors(), session) == {}


def test_after_an_abort_another_attempt_at_the_round_opens() -> None:
    parties = Parties(terms_for(6))
    parties.dropping = {0: UPLOAD, 1: UPLOAD}
    vectors = parties.vectors()
    session = parties.conductor.set_up(parties.hospitals, 1)
    with pytest.raises(RoundAbortedError, match="4 hospitals sent their vectors; 5 are needed"):
        parties.open(session, 1, parties.upload(1, vectors, session))
    parties.dropping = {}
    session = parties.conductor.set_up(parties.hospitals, 1, attempt=2)
    _, total = parties.open(session, 1, parties.upload(1, vectors, session))
    assert total.tolist() == parties.total(vectors, parties.hospitals)


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (0, "4 hospitals advertised keys; 5 are needed"),
        (1, "4 hospitals shared their secrets; 5 are needed"),
        (2, "4 hospitals sent their vectors; 5 are needed"),
        (3, "4 hospitals signed the survivors; 5 are needed"),
        (4, "too many dropped out: 4 shares of hospital 0's self-mask seed, 5 are needed"),
    ],
)
def test_an_abort_says_at_which_stage_too_few_were_left(last: int, reason: str) -> None:
    parties = Parties(terms_for(6))
    parties.dropping = {4: last, 5: last}

    def one_round() -> None:
        session = parties.conductor.set_up(parties.hospitals, 1)
        parties.open(session, 1, parties.upload(1, parties.vectors(), session))

    with pytest.raises(RoundAbortedError, match=reason):
        one_round()


@pytest.mark.parametrize("dropped", [(), (1,), (1, 6)])
def test_real_updates_come_out_as_the_survivors_weighted_mean_within_a_step(dropped: tuple[int, ...]) -> None:
    encoding = Encoding(8, clip=2.0, bits=18, max_weight=500)
    parties = Parties(terms_for(complete_graph(8), length=encoding.length(300), bits=18))
    parties.dropping = dict.fromkeys(dropped, UPLOAD)
    generator = np.random.default_rng(0)
    updates = generator.normal(0, 0.3, (8, 300)).astype(np.float32)
    weights = generator.integers(1, 500, 8).tolist()
    vectors = {h: encoding.encode(updates[h], weights[h], generator.bytes(16))[0] for h in parties.hospitals}
    session = parties.conductor.set_up(parties.hospitals, 1)
    unmasking, total = parties.open(session, 1, parties.upload(1, vectors, session), shards=3)
    mean, weight = encoding.decode(total)
    kept = [h for h in parties.hospitals if h not in dropped]
    assert unmasking.survivors == tuple(kept)
    assert weight == sum(weights[h] for h in kept)
    exact = np.average(updates[kept].astype(np.float64), axis=0, weights=[weights[h] for h in kept])
    assert np.abs(mean - exact).max() < encoding.mean_step(len(kept), weight)


def test_the_messages_are_as_long_for_a_long_vector_as_for_a_short_one() -> None:
    def routed(length: int) -> int:
        parties = Parties(terms_for(5, length=length))
        session = parties.conductor.set_up(parties.hospitals, 1)
        parties.open(session, 1, parties.upload(1, parties.vectors(), session))
        return sum(len(pickle.dumps((one.message, one.answer))) for one in parties.transcript)

    short, long = routed(4), routed(4000)
    assert abs(long - short) < 200
