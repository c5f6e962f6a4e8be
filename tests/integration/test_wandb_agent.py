"""`wandb agent` itself, on our sweep files, against a local stand-in for the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_fed.studies.sweep_file import read_sweep
from tests.integration.conftest import REPOSITORY
from tests.wandb_stand_in import ENTITY, PROJECT, StandIn, serving

pytestmark = pytest.mark.slow

SMALLEST = {
    **{"data.name": "bloodcells", "data.images": 200, "data.partition": "iid", "data.min_images": 4},
    **{"model.name": "dpresnet", "model.width": 2, "model.pretrained": "null", "federation.rounds": 2},
    "ray.enabled": "false",
}

UNANSWERED = {  # of tables and files, which the run goes on without
    *("ArtifactType", "CreateArtifact", "CreateRunFiles", "OrganizationCoreWeaveOrganizationID"),
    "ServerFeaturesQuery",
}


def run_agent(folder: Path, file: str, points: list[dict[str, Any]]) -> StandIn:
    """The agent of a sweep with these points, in a folder from which `configs/` is seen."""
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    config = yaml.safe_load((REPOSITORY / "configs" / "sweeps" / file).read_text())
    here = str(Path(sys.executable).parent)
    environment = os.environ | {
        "PATH": os.pathsep.join([here, os.environ["PATH"]]),
        "PYTHONPATH": str(REPOSITORY),
        "WANDB_API_KEY": "0" * 40,
        "WANDB_DIR": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    with serving(StandIn("abcd1234", config, points)) as server:
        ended = subprocess.run(
            [str(Path(here) / "wandb"), "agent", f"{ENTITY}/{PROJECT}/{server.name}"],
            cwd=folder,
            env=environment | {"WANDB_BASE_URL": server.url},
            capture_output=True,
            text=True,
            timeout=400,
        )
    assert ended.returncode == 0, ended.stderr
    assert len(server.ended) == len(points), ended.stderr
    assert set(server.unknown) <= UNANSWERED
    return server


def test_the_agent_runs_the_grid_over_mechanism_and_epsilon(tmp_path: Path) -> None:
    sweep = read_sweep(str(REPOSITORY / "configs" / "sweeps" / "privacy_budget.yaml"))
    grid = sweep.points(None, 0, None)
    chosen = [grid[0], grid[-1]]
    server = run_agent(tmp_path, "privacy_budget.yaml", [point | SMALLEST for point in chosen])
    assert set(server.ended.values()) == {0}
    for (name, told), point in zip(sorted(server.summaries.items()), chosen, strict=True):
        assert server.runs[name]["sweep"] == server.name
        assert 0 <= told["test/accuracy"] <= 1
        assert told["epsilon"] == pytest.approx(point["privacy.epsilon"], rel=0.02)
        assert told["status"] == "completed"
        assert len(server.history[name]) == 2
        assert any("released/accuracy_by_epsilon" in line for line in server.history[name])
    folders = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert [name.rpartition("-")[2] for name in folders] == ["run0", "run1"]
    mechanisms = [
        json.loads((tmp_path / "runs" / name / "summary.json").read_text())["privacy"]["mechanism"]
        for name in folders
    ]
    assert mechanisms == ["distributed", "record"]


def test_the_agent_runs_a_draw_of_the_recipe(tmp_path: Path) -> None:
    (drawn,) = read_sweep(str(REPOSITORY / "configs" / "sweeps" / "recipe.yaml")).points(1, 0, "random")
    server = run_agent(tmp_path, "recipe.yaml", [drawn | SMALLEST])
    assert server.ended == {"run0": 0}
    metric = yaml.safe_load((REPOSITORY / "configs" / "sweeps" / "recipe.yaml").read_text())["metric"]["name"]
    assert metric in server.summaries["run0"]
