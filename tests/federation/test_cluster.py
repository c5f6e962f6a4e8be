"""Where actors live and what they reserve, without a Ray."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.errors import InputError
from lightning_fed.experiment import Ray
from lightning_fed.federation.cluster import Cluster, Node


class NodesOnly(Cluster):
    """A cluster of given nodes, with no Ray behind it."""

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes

    @property
    def nodes(self) -> list[Node]:
        return self._nodes


def free(name: str, cpus: float, gpus: float = 0) -> Node:
    return Node(name, cpus, gpus, cpus, gpus)


@given(
    st.lists(st.tuples(st.integers(1, 64), st.integers(0, 8)), min_size=1, max_size=5),
    st.sampled_from([0.5, 1.0, 2.0, 4.0]),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.integers(1, 120),
)
def test_every_actor_sits_on_a_node_where_its_hospital_can_train_and_all_fit(
    sizes: list[tuple[int, int]], cpus: float, gpus: float, actors: int
) -> None:
    settings = Ray(cpus_per_hospital=cpus, gpus_per_hospital=gpus)
    nodes = {str(number): free(str(number), *size) for number, size in enumerate(sizes)}
    cluster = NodesOnly(list(nodes.values()))
    if not any(node.slots(settings) for node in nodes.values()):
        with pytest.raises(InputError, match="ray"):
            cluster.seats(settings, actors)
        return
    seats = cluster.seats(settings, actors)
    capacity = cluster.capacity(settings)
    assert len(seats) == actors
    assert all(capacity.per_node[seat.node] > 0 for seat in seats)
    for name, count in Counter(seat.node for seat in seats).items():
        here = [seat for seat in seats if seat.node == name]
        assert sum(seat.cpus for seat in here) <= nodes[name].cpus + 1e-6
        if gpus:
            per_card = int(1 / here[0].gpus + 1e-9)
            assert per_card * nodes[name].gpus >= count


def test_a_lost_actor_comes_back_to_its_node_though_its_share_still_counts_as_taken() -> None:
    full = [Node("a", 4, 1, 0, 0), Node("b", 4, 1, 4, 1)]
    seat = NodesOnly(full).seat_again(Ray(cpus_per_hospital=2, gpus_per_hospital=1.0), "a")
    assert seat is not None
    assert (seat.node, seat.cpus, seat.gpus, seat.anywhere) == ("a", 0.0, 1e-4, True)
    elsewhere = NodesOnly(full).seat_again(Ray(gpus_per_hospital=1.0), "lost")
    assert elsewhere is not None
    assert (elsewhere.node, elsewhere.gpus) == ("b", 1.0)
    assert NodesOnly(full[:1]).seat_again(Ray(gpus_per_hospital=1.0), "lost") is None, "all is taken by others"
    mixed = [Node("g", 4, 2, 0, 2), Node("c", 4, 0, 4, 0)]
    for_cpus = NodesOnly(mixed).seat_again(Ray(), "lost")
    assert for_cpus is not None
    assert for_cpus.node == "c"
    assert NodesOnly([free("a", 4)]).seat_again(Ray(gpus_per_hospital=1.0), "a") is None


def test_where_there_is_room_each_actor_reserves_its_whole_price() -> None:
    seats = NodesOnly([free("a", 8), free("b", 8)]).seats(Ray(cpus_per_hospital=2), 8)
    assert {seat.cpus for seat in seats} == {2.0}
    assert Counter(seat.node for seat in seats) == {"a": 4, "b": 4}


def test_actors_keep_off_a_node_that_is_too_small_for_one_hospital() -> None:
    seats = NodesOnly([free("large", 8), free("small", 2)]).seats(Ray(cpus_per_hospital=4), 10)
    assert {seat.node for seat in seats} == {"large"}
    assert sum(seat.cpus for seat in seats) <= 8


def test_ten_hospitals_share_the_cards_of_a_gpu_worker_beside_a_large_head_node() -> None:
    cluster = NodesOnly([free("head", 64), free("worker", 8, 4)])
    seats = cluster.seats(Ray(gpus_per_hospital=0.25), 10)
    assert {seat.node for seat in seats} == {"worker"}
    assert {seat.cpus for seat in seats} == {0.8}
    assert {seat.gpus for seat in seats} == {0.25}


def test_cpus_and_gpus_must_be_on_one_node() -> None:
    cluster = NodesOnly([free("head", 64), free("worker", 8, 1)])
    with pytest.raises(InputError, match="no node has both 16 CPUs and 1 GPUs"):
        cluster.usable(Ray(cpus_per_hospital=16, gpus_per_hospital=1))


def test_what_others_have_reserved_is_not_reserved_again() -> None:
    seats = NodesOnly([Node("a", 4, 0, 3, 0)]).seats(Ray(), 10)
    assert sum(seat.cpus for seat in seats) <= 3


def test_capacity_is_the_machine_s_size_by_node_and_by_gpu() -> None:
    cluster = NodesOnly([free("a", 16, 2), free("b", 3, 1)])
    capacity = cluster.capacity(Ray(cpus_per_hospital=2, gpus_per_hospital=0.25))
    assert capacity.per_node == {"a": 8, "b": 1}
    assert capacity.per_gpu == 4


def test_a_gpu_that_no_node_has_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"ray\.gpus_per_hospital is 0\.5, but no node has more than 0"):
        NodesOnly([free("a", 2)]).usable(Ray(gpus_per_hospital=0.5))
