"""Promise 6: the same seed gives the same final weights, bit for bit, on any number of workers, packed or resumed.

The table is {plain, secagg_plus, additive, DP-SGD behind secagg_plus} x {1, 2, 4 hospitals train at once} x
{packed, a process each} x {resumed, not}. Its lines hold all twelve combinations of the last three, and every pair
of values of any two of the four. A resumed run is begun in this process, stopped by its user while a round is
recorded, and goes on on Ray with the line's words (a run that is begun on Ray, killed, and goes on there is in
`test_resume.py`). All are compared with a run of their protocol that one process made in one go. One Ray, with
four CPUs whatever the machine has, serves all lines.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lightning_fed.cli import main
from lightning_fed.experiment import Ray
from lightning_fed.federation.cluster import Cluster
from lightning_fed.tracking.files import RunFolder
from lightning_fed.tracking.records import RoundRecord
from tests.integration.conftest import CPUS, same, weights, words

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_ray")]

STOPPED_IN = 2
ADAM = {"federation.server_optimizer": "Adam", "federation.server_lr": 0.01}
DROPOUTS = "[{round: 2, hospital: 1, stage: after_shares}, {round: 4, hospital: 3, stage: after_masked_input}]"
PROTOCOLS: dict[str, dict[str, Any]] = {
    "plain": {**ADAM, "federation.participation": 0.75},
    "secagg_plus": {**ADAM, "faults.dropout.losses": DROPOUTS, "secagg.shards": 2},
    "additive": {**ADAM, "federation.participation": 0.75},
    "record": {
        **ADAM,
        "secagg.protocol": "secagg_plus",
        "privacy.mechanism": "record",
        "privacy.epsilon": 6,
        "data.validation": 0,
        "faults.dropout.losses": DROPOUTS,
    },
}


class Line(NamedTuple):
    """One of the table; `workers` train at once where there are as many processes."""

    protocol: str
    workers: int
    packed: bool
    resumed: bool

    def __str__(self) -> str:
        packed, resumed = "packed" if self.packed else "apart", "resumed" if self.resumed else "in one go"
        return f"{self.protocol}, {self.workers} at once, {packed}, {resumed}"


TABLE = [
    Line("plain", 1, packed=True, resumed=False),
    Line("plain", 2, packed=True, resumed=False),
    Line("plain", 4, packed=False, resumed=True),
    Line("secagg_plus", 1, packed=False, resumed=True),
    Line("secagg_plus", 2, packed=True, resumed=True),
    Line("secagg_plus", 4, packed=False, resumed=False),
    Line("additive", 1, packed=True, resumed=False),
    Line("additive", 2, packed=False, resumed=False),
    Line("additive", 4, packed=True, resumed=True),
    Line("record", 1, packed=False, resumed=False),
    Line("record", 1, packed=True, resumed=True),
    Line("record", 2, packed=False, resumed=True),
    Line("record", 4, packed=True, resumed=False),
]


def experiment(output: Path, protocol: str, **changes: object) -> list[str]:
    common = {"secagg.protocol": protocol, "privacy.reproducible": True, "federation.rounds": 4}
    small = {"data.images": 120, "model.width": 2}
    return words(output, **{**common, **small, **PROTOCOLS[protocol], **changes})


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each protocol's run in one process."""
    folders = {protocol: tmp_path_factory.mktemp("alone") / protocol for protocol in PROTOCOLS}
    for protocol, output in folders.items():
        assert main(["run", *experiment(output, protocol, ray__enabled=False)]) == 0
    return folders


def stop(output: Path, protocol: str) -> None:
    """Begin a run in this process, and stop it while a round is recorded: hospitals have gone on to the next."""
    add = RunFolder.add_round

    def interrupted(self: RunFolder, record: RoundRecord) -> None:
        add(self, record)
        if record.trained.round == STOPPED_IN:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "add_round", interrupted)
        assert main(["run", *experiment(output, protocol, ray__enabled=False)]) == 130
    assert not (output / "summary.json").exists()


def test_the_table_holds_all_placements_and_every_pair_of_values() -> None:
    choices: list[tuple[object, ...]] = [tuple(PROTOCOLS), (1, 2, 4), (False, True), (False, True)]
    assert {line[1:] for line in TABLE} == set(itertools.product(*choices[1:]))
    for first, second in itertools.combinations(range(len(choices)), 2):
        wanted = set(itertools.product(choices[first], choices[second]))
        assert {(line[first], line[second]) for line in TABLE} == wanted


@pytest.mark.parametrize("line", TABLE, ids=str)
def test_the_final_weights_are_those_of_one_process(line: Line, alone: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "run"
    placed = Ray(cpus_per_hospital=CPUS / line.workers, hospitals_per_actor=2 if line.packed else 1)
    assert Cluster(placed).nodes[0].slots(placed) == line.workers
    keys = {
        "ray.cpus_per_hospital": placed.cpus_per_hospital,
        "ray.hospitals_per_actor": placed.hospitals_per_actor,
    }
    if line.resumed:
        stop(output, line.protocol)
        places = [f"--{key}={value}" for key, value in keys.items()]
        assert main(["run", "--resume", str(output), "--ray.enabled=true", *places]) == 0
    else:
        assert main(["run", *experiment(output, line.protocol, **keys)]) == 0
    assert same(weights(alone[line.protocol]), weights(output))
    assert released(output) == released(alone[line.protocol])


def released(output: Path) -> list[Any]:
    """What each round released, of rounds that all gave a new model."""
    lines = [json.loads(line) for line in (output / "rounds.jsonl").read_text().splitlines()]
    assert [line["aggregation"]["failed"] for line in lines] == [None] * 4
    return [line["released"] for line in lines]
