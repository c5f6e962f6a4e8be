"""Private training on a real Ray: the same weights and the same spending as in one process, masked or not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_fed.cli import main
from tests.integration.conftest import same, weights, words

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_ray")]

PRIVATE = {
    "privacy__epsilon": 4.0,
    "privacy__reproducible": True,
    "data__validation": 0,
    "federation__weighting": "equal",
    "federation__rounds": 2,
}


@pytest.mark.parametrize(
    ("mechanism", "protocol"),
    [(name, protocol) for name in ("record", "update") for protocol in ("plain", "secagg_plus")]
    + [("distributed", "secagg_plus")],
)
def test_a_private_run_is_the_same_on_ray_and_in_one_process(
    tmp_path: Path, mechanism: str, protocol: str
) -> None:
    steps = {"federation__local_steps": 2} if mechanism == "distributed" else {}
    changes = (
        PRIVATE | steps | {"privacy__mechanism": mechanism, "secagg__protocol": protocol, "secagg__clip": 200}
    )
    alone, on_ray = tmp_path / "alone", tmp_path / "ray"
    assert main(["run", *words(alone, ray__enabled=False, **changes)]) == 0
    assert main(["run", *words(on_ray, ray__hospitals_per_actor=3, **changes)]) == 0
    assert same(weights(alone), weights(on_ray))
    told = [json.loads((folder / "summary.json").read_text())["privacy"] for folder in (alone, on_ray)]
    assert told[0] == told[1]
    assert 3.9 < told[0]["epsilon"] <= 4.0
    assert told[0]["unit"] == "hospital" if mechanism == "update" else "image"
    assert told[0]["reproducible"] is True
