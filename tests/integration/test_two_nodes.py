"""A cluster of several nodes on one machine: hospitals spread over them, and a node removed in mid-round."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.authentication.authentication_token_setup import enable_token_auth_by_default
from ray.cluster_utils import Cluster as Nodes

from lightning_fed.cli import main
from lightning_fed.federation.actors import ActorCrew
from tests.federation.protected import driver_of
from tests.integration.conftest import same, weights, words
from tests.integration.test_secagg_on_ray import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A head that trains nothing, and two nodes of one CPU each, which ask for a token as `ray start` has it.

    The tests share them, so the one that takes one of the two away comes last.
    """
    enable_token_auth_by_default()
    found = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            found.add_node(num_cpus=1)
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "in-process"
    assert main(["run", *words(output, ray__enabled=False)]) == 0
    return output


def on(nodes: Nodes) -> dict[str, Any]:
    return {"ray.address": nodes.address}


def one_to_remove(nodes: Nodes) -> Any:
    """A node of hospitals to which the driver itself is not attached: all of them have one address."""
    here = ray.get_runtime_context().get_node_id()
    return next(node for node in nodes.worker_nodes if node.node_id != here)


def places(nodes: Nodes) -> list[str]:
    """The nodes of all hospitals' actors that were ever made."""
    ray.init(address=nodes.address, ignore_reinit_error=True, log_to_driver=False)
    told = ray._private.state.actors().values()  # type: ignore[attr-defined]
    return [actor["Address"]["NodeID"] for actor in told if "HospitalActor" in actor["ActorClassName"]]


def test_hospitals_stand_on_both_nodes_and_give_the_weights_of_one_process(
    nodes: Nodes, in_process: Path, tmp_path: Path
) -> None:
    assert main(["run", *words(tmp_path / "run", **on(nodes))]) == 0
    assert same(weights(in_process), weights(tmp_path / "run"))
    found = places(nodes)
    assert len(found) == len(set(found)) == 2


def test_with_masks_the_hospitals_of_a_removed_node_drop_out_of_one_round(nodes: Nodes, tmp_path: Path) -> None:
    """Of eight hospitals on three nodes, those of one go in round 2, after the exchange of keys, and move."""
    nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    settings = replace(SMALL, ray=replace(SMALL.ray, address=nodes.address, hospitals_per_actor=3))
    settings = replace(settings, federation=replace(SMALL.federation, rounds=3))
    driver = driver_of(settings, tmp_path)
    with closing(driver.crew):
        there: Any = driver.crew
        third = one_to_remove(nodes)
        gone = [site for site, place in enumerate(there.places) if place.node == third.node_id]
        assert len(gone) == 1
        start, removed = there.start, []

        def start_without_the_node(site: int, method: str, arguments: tuple[Any, ...], apart: int = 0) -> Any:
            if method == "fit" and arguments[1] == 2 and site in gone and not removed:
                nodes.remove_node(third)
                removed.append(site)
            return start(site, method, arguments, apart)

        there.start = start_without_the_node
        dispatcher = driver.dispatcher
        driver.on_close = lambda trained: dispatcher.run_until(lambda: not dispatcher.coming)
        first, second, last = (record.trained for record in driver.rounds())
        assert there.places[gone[0]].node not in (third.node_id, None)
    hospitals = {member.hospital for member in driver.roster.groups[gone[0]]}
    assert removed == gone
    assert len(first.counted) == 8
    assert {one.hospital for one in second.dropped} == set(last.returned) == hospitals
    assert {one.stage for one in second.dropped} == {"after_shares"}
    assert second.failed is None
    assert set(second.counted) == set(range(8)) - hospitals
    assert last.counted == tuple(range(8))


def test_without_masks_the_hospitals_of_a_removed_node_move_and_the_weights_are_the_same(
    nodes: Nodes, in_process: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, start, removed = tmp_path / "run", ActorCrew.start, []

    def start_without_a_node(crew: ActorCrew, site: int, method: str, arguments: Any, apart: int = 0) -> Any:
        if method == "fit" and arguments[1] == 2 and not removed:
            removed.append(site)
            nodes.remove_node(one_to_remove(nodes))
        return start(crew, site, method, arguments, apart)

    monkeypatch.setattr(ActorCrew, "start", start_without_a_node)
    assert main(["run", *words(output, **on(nodes))]) == 0
    assert removed
    assert same(weights(in_process), weights(output))
