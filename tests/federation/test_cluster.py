"""What an actor reserves, without a Ray."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.errors import InputError
from lightning_fed.experiment import Ray
from lightning_fed.federation.cluster import Cluster, Node, _share


@given(
    st.lists(st.integers(1, 64), min_size=1, max_size=5),
    st.floats(0.1, 8),
    st.integers(1, 120),
)
def test_all_actors_can_be_placed_and_none_reserves_more_than_its_price(
    capacities: list[int], wanted: float, actors: int
) -> None:
    share = _share([float(capacity) for capacity in capacities], wanted, actors)
    assert 0 < share <= wanted + 1e-4
    assert sum(int(capacity / share + 1e-9) for capacity in capacities) >= actors


def test_where_there_is_room_each_actor_reserves_its_whole_price() -> None:
    assert _share([8.0, 8.0], 2.0, 8) == 2.0


class NodesOnly(Cluster):
    """A cluster of given nodes, with no Ray behind it."""

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes

    @property
    def nodes(self) -> list[Node]:
        return self._nodes


def test_capacity_is_the_machine_s_size_by_node_and_by_gpu() -> None:
    cluster = NodesOnly([Node("a", 16, 2), Node("b", 3, 0)])
    capacity = cluster.capacity(Ray(cpus_per_hospital=2, gpus_per_hospital=0.25))
    assert capacity.per_node == {"a": 8, "b": 1}
    assert capacity.per_gpu == 4


def test_a_gpu_that_no_node_has_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"ray\.gpus_per_hospital is 0\.5, but no node has more than 0"):
        NodesOnly([Node("a", 2, 0)])._check(Ray(gpus_per_hospital=0.5))
