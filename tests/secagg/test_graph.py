from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.secagg.graph import Graph
from lightning_fed.secagg.parameters import Parameters, complete_graph
from tests.secagg.statistics import by_chance


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    hospitals = draw(st.sets(st.integers(0, 200), min_size=1, max_size=60))
    planned = draw(st.integers(max(len(hospitals), 3), 80))
    degree = 2 * draw(st.integers(1, max((planned - 1) // 2, 1)))
    return Graph(
        hospitals, Parameters(planned, min(degree, planned - 1), 2), draw(st.binary(min_size=32, max_size=32))
    )


@given(graph=graphs())
def test_neighbours_are_mutual_distinct_ascending_and_as_many_as_the_degree(graph: Graph) -> None:
    for hospital in graph.hospitals:
        neighbours = graph.neighbours(hospital)
        assert list(neighbours) == sorted(set(neighbours) - {hospital})
        assert len(neighbours) == min(graph.parameters.degree, len(graph.hospitals) - 1)
        assert all(hospital in graph.neighbours(other) for other in neighbours)


@given(graph=graphs())
def test_the_ring_stays_in_one_piece_without_any_degree_minus_one_of_a_hospitals_neighbours(graph: Graph) -> None:
    gone = set(graph.neighbours(graph.hospitals[0])[: graph.parameters.degree - 1])
    left = set(graph.hospitals) - gone
    reached, edge = set(), {graph.hospitals[0]}
    while edge:
        reached |= edge
        edge = {other for hospital in edge for other in graph.neighbours(hospital)} & left - reached
    assert reached == left


@given(graph=graphs())
def test_all_that_saw_the_same_keys_draw_the_same_graph(graph: Graph) -> None:
    again = Graph(reversed(graph.hospitals), graph.parameters, graph.digest)
    assert all(again.neighbours(hospital) == graph.neighbours(hospital) for hospital in graph.hospitals)


@pytest.mark.parametrize(("degree", "own"), [(9, True), (4, False)])
def test_owners_hold_a_share_of_their_own_in_the_complete_graph_only(degree: int, own: bool) -> None:
    graph = Graph(range(10), Parameters(10, degree, 4), bytes(32))
    for hospital in range(10):
        assert (hospital in graph.holders(hospital)) == own
        assert set(graph.holders(hospital)) - {hospital} == set(graph.neighbours(hospital))
        assert len(graph.holders(hospital)) == graph.parameters.holders


def test_with_hospitals_missing_the_complete_graph_stays_complete() -> None:
    graph = Graph([0, 2, 5], complete_graph(6), bytes(32))
    assert graph.neighbours(2) == (0, 5)
    assert graph.holders(2) == (0, 2, 5)


def test_a_stranger_has_no_neighbours() -> None:
    with pytest.raises(KeyError):
        Graph(range(4), complete_graph(4), bytes(32)).neighbours(4)


def test_over_sessions_every_pair_is_as_likely_to_be_neighbours() -> None:
    parameters, sessions = Parameters(9, 4, 3), 1000
    pairs: Counter[tuple[int, int]] = Counter()
    for _ in range(sessions):
        graph = Graph(range(9), parameters, os.urandom(32))
        pairs.update((one, other) for one in range(9) for other in graph.neighbours(one) if one < other)
    assert len(pairs) == 36
    assert all(by_chance(together, sessions) > 1e-7 for together in pairs.values())
