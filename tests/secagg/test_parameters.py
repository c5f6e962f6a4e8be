"""The rows of `known_parameters.csv` are exact values of the rule of google-parfait/federated-compute, fcp/secagg.

They were copied from shared/vectors/secagg_plus_parameters.csv.
"""

from __future__ import annotations

import csv
import re
from fractions import Fraction
from math import ceil, comb, factorial, floor
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightning_fed.secagg.errors import UnsafeParametersError
from lightning_fed.secagg.parameters import (
    COMPLETE_BELOW,
    Assumption,
    Parameters,
    Server,
    choose,
    complete_graph,
    nearest_safe,
    objection,
    rates_that_hold,
    rule,
    unchecked,
)

with Path(__file__).with_name("known_parameters.csv").open() as table:
    KNOWN = list(csv.DictReader(table))
SERVERS: tuple[Server, ...] = ("semi_honest", "semi_malicious")
RATES_SAID = re.compile(r"adversary rate up to (\S+) and a dropout rate up to (\S+) under a (\w+) server")
RATES = st.sampled_from([0.0, 0.01, 0.05, 0.1, 0.2, 0.25, 0.29, 0.3, 0.33, 0.45, 0.6])


def share(rate: float, hospitals: int) -> int:
    return floor(Fraction(str(rate)) * hospitals)


def chance_of_more(hospitals: int, marked: int, drawn: int, number: int) -> Fraction:
    """Hypergeometric P[X > number], exactly."""
    ways = sum(
        comb(marked, hits) * comb(hospitals - marked, drawn - hits) for hits in range(number + 1, drawn + 1)
    )
    return Fraction(ways, comb(hospitals, drawn))


def most_corrupt_neighbours(hospitals: int, corrupt: int, degree: int) -> int:
    """Exceeded by a hospital's corrupt neighbours with a probability of at most 2^-41 / n."""
    bound = Fraction(1, 2**41 * hospitals)
    return next(t for t in range(degree + 1) if chance_of_more(hospitals, corrupt, degree, t) <= bound)


def exact_rule(hospitals: int, adversaries: float, dropouts: float, server: Server) -> tuple[int, int] | None:
    """The rule of facts.md section 6 once more, in integers and fractions."""
    corrupt, dropped = share(adversaries, hospitals), share(dropouts, hospitals)
    lying = server == "semi_malicious"
    if Fraction(str(adversaries)) + (1 + lying) * Fraction(str(dropouts)) > Fraction(9, 10):
        return None
    bad = corrupt + dropped
    for degree in range(2, hospitals, 2):
        if degree <= bad:
            cut = Fraction(hospitals * (hospitals - degree - 1), 2) * Fraction(
                factorial(bad) * factorial(hospitals - degree), factorial(hospitals) * factorial(bad - degree)
            )
            if cut > Fraction(1, 2**41):
                continue
        secure = most_corrupt_neighbours(hospitals, corrupt, degree)
        alive, least = hospitals - dropped, Fraction(1, 2**20 * hospitals)
        correct = next(t for t in range(degree + 1) if 1 - chance_of_more(hospitals, alive, degree, t) >= least)
        if lying:
            secure = ceil(Fraction(4 * (secure + degree) - 5, 8))
        if correct > secure:
            return degree, max(secure + 1, 2)
    return None


def by_rule(hospitals: int, assumption: Assumption) -> tuple[int, int] | None:
    try:
        found = rule(hospitals, assumption)
    except UnsafeParametersError:
        return None
    return found.degree, found.threshold


@pytest.mark.parametrize("row", KNOWN, ids=lambda row: "-".join(row.values()))
def test_every_known_row_comes_out(row: dict[str, str]) -> None:
    server: Server = "semi_honest" if row["server"] == "semi_honest_server" else "semi_malicious"
    assumption = Assumption(float(row["adversary_rate"]), float(row["dropout_rate"]), server)
    assert by_rule(int(row["clients"]), assumption) == (int(row["degree"]), int(row["threshold"]))


def test_the_table_of_known_rows_is_whole() -> None:
    assert len(KNOWN) == 29
    assert {row["server"] for row in KNOWN} == {"semi_honest_server", "semi_malicious_server"}


@pytest.mark.parametrize(
    ("hospitals", "server", "degree", "threshold"),
    [
        (100, "semi_malicious", 32, 22),
        (1000, "semi_malicious", 96, 67),
        (100, "semi_honest", 22, 11),
        (1000, "semi_honest", 48, 27),
    ],
)
def test_a_tenth_corrupt_and_a_tenth_dropping_out_give_the_stated_rows(
    hospitals: int, server: Server, degree: int, threshold: int
) -> None:
    chosen = choose(hospitals, Assumption(0.1, 0.1, server))
    assert (chosen.degree, chosen.threshold) == (degree, threshold)


@settings(max_examples=300)
@given(hospitals=st.integers(3, 60), adversaries=RATES, dropouts=RATES, server=st.sampled_from(SERVERS))
def test_the_rule_is_that_of_exact_arithmetic(
    hospitals: int, adversaries: float, dropouts: float, server: Server
) -> None:
    found = by_rule(hospitals, Assumption(adversaries, dropouts, server))
    assert found == exact_rule(hospitals, adversaries, dropouts, server)


@pytest.mark.parametrize("hospitals", [75, 123, 250])
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("rates", [(0.1, 0.1), (0.3, 0.05), (0.05, 0.3), (0.29, 0.29)])
def test_the_rule_is_that_of_exact_arithmetic_for_larger_federations(
    hospitals: int, server: Server, rates: tuple[float, float]
) -> None:
    found = by_rule(hospitals, Assumption(*rates, server))
    assert found is not None
    assert found == exact_rule(hospitals, *rates, server)


@settings(max_examples=200)
@given(hospitals=st.integers(3, 60), adversaries=RATES, dropouts=RATES)
def test_under_a_lying_server_two_disjoint_quorums_never_meet_at_one_hospital(
    hospitals: int, adversaries: float, dropouts: float
) -> None:
    try:
        chosen = choose(hospitals, Assumption(adversaries, dropouts, "semi_malicious"))
    except UnsafeParametersError:
        return
    corrupt = max(share(adversaries, hospitals), 1)
    near = corrupt if chosen.complete else most_corrupt_neighbours(hospitals, corrupt, chosen.degree)
    assert 2 * chosen.threshold > chosen.holders + near


@settings(max_examples=200)
@given(hospitals=st.integers(3, 60), adversaries=RATES, dropouts=RATES, server=st.sampled_from(SERVERS))
def test_enough_share_holders_survive_and_corrupt_ones_alone_open_nothing(
    hospitals: int, adversaries: float, dropouts: float, server: Server
) -> None:
    try:
        chosen = choose(hospitals, Assumption(adversaries, dropouts, server))
    except UnsafeParametersError:
        return
    corrupt, alive = max(share(adversaries, hospitals), 1), hospitals - share(dropouts, hospitals)
    if chosen.complete:
        assert corrupt < chosen.threshold <= alive
    else:
        assert chosen.threshold > most_corrupt_neighbours(hospitals, corrupt, chosen.degree)
        too_few = 1 - chance_of_more(hospitals, alive, chosen.degree, chosen.threshold - 1)
        assert too_few < Fraction(1, 2**20 * hospitals)


@pytest.mark.parametrize("hospitals", [3, 4, 5, 10, 13, 15])
def test_below_sixteen_hospitals_everybody_is_a_neighbour(hospitals: int) -> None:
    chosen = choose(hospitals, Assumption(0.0, 0.0))
    assert chosen == Parameters(hospitals, hospitals - 1, floor(Fraction(2 * hospitals, 3)) + 1)
    assert chosen.complete
    assert chosen.holders == hospitals
    assert hospitals < COMPLETE_BELOW


def test_from_sixteen_hospitals_on_it_is_a_ring() -> None:
    chosen = choose(16, Assumption())
    assert (chosen.degree, chosen.threshold) == (4, 3)
    assert not chosen.complete


@pytest.mark.parametrize("hospitals", [16, 20, 33, 50, 100, 250])
@pytest.mark.parametrize("rates", [(0.0, 0.0), (0.1, 0.1), (0.3, 0.05), (0.05, 0.3)])
def test_an_owner_on_a_ring_holds_a_share_of_its_own_only_where_that_opens_nothing_to_two_quorums(
    hospitals: int, rates: tuple[float, float]
) -> None:
    chosen = choose(hospitals, Assumption(*rates))
    if not chosen.complete:
        near = most_corrupt_neighbours(hospitals, max(share(rates[0], hospitals), 1), chosen.degree)
        assert chosen.owner_holds_one == (2 * chosen.threshold > chosen.degree + 1 + near)
        assert chosen.holders == chosen.degree + chosen.owner_holds_one
    assert not Parameters(hospitals, 4, 3).owner_holds_one


def test_the_adversary_chooses_who_takes_part_in_a_cohort() -> None:
    """Five of fifty hospitals collude, and all five may be among ten."""
    assumption = Assumption(0.1, 0.1, population=50)
    assert [assumption.corrupt(hospitals) for hospitals in (50, 10, 5, 3)] == [5, 5, 5, 3]
    assert assumption.dropped(10) == 1
    chosen = choose(10, assumption)
    assert 2 * chosen.threshold > 10 + 5
    assert chosen.threshold <= 9
    with pytest.raises(UnsafeParametersError, match="with 5 corrupt, a lying server could open a single vector"):
        choose(10, assumption, 9, 7)
    assert choose(10, Assumption(0.1, 0.1), 9, 7).threshold == 7


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("dropouts", [0.0, 0.1, 0.33])
@pytest.mark.parametrize("hospitals", [16, 30, 100, 1000])
def test_a_run_assumes_at_least_one_adversary(hospitals: int, dropouts: float, server: Server) -> None:
    for rate in (0.0, 0.9 / hospitals):
        assumption = Assumption(rate, dropouts, server)
        assert assumption.corrupt(hospitals) == 0
        chosen = choose(hospitals, assumption)
        one = float(f"{1.01 / hospitals:.4g}")
        by_one = rule(hospitals, Assumption(one, dropouts, server))
        assert (chosen.degree, chosen.threshold) == (by_one.degree, by_one.threshold)
        assert chosen.threshold > 1


def test_rates_are_decimals() -> None:
    assert Assumption(adversary_rate=0.29).corrupt(100) == 29
    assert Assumption(dropout_rate=0.57).dropped(100) == 57
    assert [Assumption(0.07).corrupt(100), Assumption(0.7).corrupt(10), Assumption(0.1).corrupt(9)] == [7, 7, 0]


@pytest.mark.parametrize(
    ("adversaries", "dropouts", "server", "feasible"),
    [
        (0.45, 0.45, "semi_honest", True),
        (0.3, 0.3, "semi_malicious", True),
        (0.6, 0.31, "semi_honest", False),
        (0.31, 0.3, "semi_malicious", False),
        (0.7, 0.1, "semi_malicious", True),
    ],
)
def test_the_rates_must_leave_a_tenth(adversaries: float, dropouts: float, server: Server, feasible: bool) -> None:
    assumption = Assumption(adversaries, dropouts, server)
    assert assumption.feasible == feasible
    if not feasible:
        with pytest.raises(UnsafeParametersError, match="no graph of 10000 hospitals holds"):
            rule(10_000, assumption)


@pytest.mark.parametrize("hospitals", [-1, 0, 1, 2])
def test_fewer_than_three_hospitals_are_refused(hospitals: int) -> None:
    for call in (rule, choose, unchecked):
        with pytest.raises(UnsafeParametersError, match="the sum of two tells each the other's; take 3 or more"):
            call(hospitals, Assumption())


def test_the_papers_parameters_are_refused_where_hospitals_drop_out() -> None:
    with pytest.raises(UnsafeParametersError) as refusal:
        choose(10, Assumption(0.1, 0.1), degree=4, threshold=4)
    said = str(refusal.value)
    assert said.startswith(
        "degree 4 and threshold 4 are unsafe for 10 hospitals: with 1 dropping out, only 3 shares"
    )
    nearest = nearest_safe(Parameters(10, 4, 4), Assumption(0.1, 0.1))
    assert nearest is not None
    assert f"the nearest that holds is degree {nearest.degree}, threshold {nearest.threshold}" in said
    assert "4/4 itself holds with an adversary rate up to" in said


def test_the_papers_parameters_hold_without_dropouts() -> None:
    for server in SERVERS:
        assert choose(10, Assumption(0.33, 0.0, server), 4, 4) == Parameters(10, 4, 4)


def test_a_threshold_that_a_lying_server_splits_is_refused_and_good_for_an_honest_one() -> None:
    assert choose(100, Assumption(0.1, 0.1, "semi_honest"), 22, 11).threshold == 11
    with pytest.raises(UnsafeParametersError, match="a lying server could open a single vector below"):
        choose(100, Assumption(0.1, 0.1, "semi_malicious"), 22, 11)


def every_choice(hospitals: int) -> list[Parameters]:
    degrees = {*range(2, hospitals - 1, 2), hospitals - 1}
    return [Parameters(hospitals, degree, t) for degree in degrees for t in range(1, degree + 2)]


@given(
    hospitals=st.integers(3, 24),
    adversaries=RATES,
    dropouts=RATES,
    server=st.sampled_from(SERVERS),
    data=st.data(),
)
def test_the_nearest_safe_choice_is_safe_and_none_is_nearer(
    hospitals: int, adversaries: float, dropouts: float, server: Server, data: st.DataObject
) -> None:
    assumption = Assumption(adversaries, dropouts, server)
    wanted = data.draw(st.sampled_from(every_choice(hospitals)))
    safe = [choice for choice in every_choice(hospitals) if objection(choice, assumption) is None]
    nearest = nearest_safe(wanted, assumption)
    if not safe:
        assert nearest is None
        return
    assert nearest in safe
    assert nearest == min(
        safe,
        key=lambda choice: (
            abs(choice.degree - wanted.degree),
            -choice.degree,
            abs(choice.threshold - wanted.threshold),
        ),
    )


@given(hospitals=st.integers(3, 40), data=st.data())
@example(hospitals=10, data=None)
def test_a_choice_holds_at_the_rates_at_which_it_is_said_to_hold(
    hospitals: int, data: st.DataObject | None
) -> None:
    wanted = Parameters(10, 4, 4) if data is None else data.draw(st.sampled_from(every_choice(hospitals)))
    said = rates_that_hold(wanted)
    found = RATES_SAID.findall(said)
    assert found or said == "holds at no rates"
    for adversaries, dropouts, server in found:
        assert objection(wanted, Assumption(float(adversaries), float(dropouts), server)) is None


def test_the_advised_rates_are_not_rounded_beyond_what_holds_in_a_large_federation() -> None:
    for threshold in range(3, 30, 4):
        wanted = Parameters(1000, 48, threshold)
        for adversaries, dropouts, server in RATES_SAID.findall(rates_that_hold(wanted)):
            assert objection(wanted, Assumption(float(adversaries), float(dropouts), server)) is None, wanted


def test_an_odd_degree_is_refused_unless_it_is_the_complete_graphs() -> None:
    with pytest.raises(
        UnsafeParametersError, match=r"degree 5 is odd: .* take 4 or 6, or 19 for the complete graph"
    ):
        choose(20, Assumption(), degree=5)
    assert choose(20, Assumption(), degree=19).complete


def test_a_degree_alone_gets_the_least_threshold_that_holds() -> None:
    chosen = choose(100, Assumption(), degree=40)
    assert objection(Parameters(100, 40, chosen.threshold - 1), Assumption()) is not None
    assert choose(10, Assumption(), degree=9) == complete_graph(10)


def test_a_degree_beyond_all_hospitals_is_the_complete_graph() -> None:
    assert choose(10, Assumption(), degree=50, threshold=7) == Parameters(10, 9, 7)


@pytest.mark.parametrize(("degree", "threshold"), [(0, 2), (4, 1), (4, 6), (9, 11), (None, 0)])
def test_a_choice_that_cannot_work_is_refused_even_unchecked(degree: int | None, threshold: int) -> None:
    with pytest.raises(UnsafeParametersError, match="cannot work"):
        unchecked(10, Assumption(), degree, threshold)


@pytest.mark.parametrize("rates", [(0.9, 0.9), (0.6, 0.6), (0.0, 0.9), (0.9, 0.0), (0.5, 0.5)])
@pytest.mark.parametrize("hospitals", [10, 20, 40])
def test_rates_that_nothing_survives_are_refused_for_an_explicit_choice_too(
    hospitals: int, rates: tuple[float, float]
) -> None:
    with pytest.raises(UnsafeParametersError, match="unsafe"):
        choose(hospitals, Assumption(*rates), degree=4, threshold=4)
