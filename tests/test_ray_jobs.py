"""The jobs' own checks, without a cluster."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lightning_fed.arguments import read_experiment
from ray_jobs import job

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "words",
    [
        ["--output", "runs/x"],
        ["--output=runs/x"],
        ["--output", "/x", "--data.root", "data"],
        ["--output", "/x", "--data.root=../data"],
        ["--resume", "runs/x"],
        ["--output"],
    ],
)
def test_a_relative_path_is_refused_with_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run_job("run", words) == 2
    assert "a job needs an absolute path" in capsys.readouterr().err


def test_an_output_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run_job("sweep", ["configs/sweeps/privacy_budget.yaml"]) == 2
    assert "--output is missing" in capsys.readouterr().err


def test_a_job_joins_the_cluster_that_runs_it_unless_it_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(job, "main", lambda words: seen.append(words) or 0)
    assert job.run_job("run", ["--output", "/x"]) == 0
    assert job.run_job("paper", ["--output=/x", "--ray.address=here:1"]) == 0
    here = ["--ray.address", "auto"]
    assert seen == [["run", "--output", "/x", *here], ["paper", "--output=/x", "--ray.address=here:1"]]


@pytest.mark.parametrize("name", ["train", "sweep", "paper"])
def test_each_script_is_its_command(name: str, tmp_path: Path) -> None:
    script = ROOT / "ray_jobs" / f"{name}.py"
    done = subprocess.run([sys.executable, str(script), "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"lightning-fed {'run' if name == 'train' else name}" in done.stdout


JOBS = ROOT / "ray_jobs"
RAYJOB_FIELDS = {  # of KubeRay's API reference for ray.io/v1, RayJobSpec
    *("entrypoint", "runtimeEnvYAML", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit"),
    *("activeDeadlineSeconds", "rayClusterSpec", "submissionMode", "suspend", "jobId", "metadata"),
}
CLUSTER_FIELDS = {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs", "enableInTreeAutoscaling"}
GROUP_FIELDS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def test_the_cluster_file_fits_rays_own_schema() -> None:
    import jsonschema
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    content = yaml.safe_load((JOBS / "cluster.yaml").read_text())
    jsonschema.validate(content, schema)
    assert content["head_node_type"] in content["available_node_types"]
    workers = sum(kind["max_workers"] for kind in content["available_node_types"].values())
    assert workers <= content["max_workers"]


def test_the_rayjob_shuts_down_has_a_deadline_and_a_token_and_its_words_are_an_experiment() -> None:
    content = yaml.safe_load((JOBS / "rayjob.yaml").read_text())
    assert (content["apiVersion"], content["kind"]) == ("ray.io/v1", "RayJob")
    spec = content["spec"]
    assert set(spec) <= RAYJOB_FIELDS
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["backoffLimit"] == 0, "a repeated job would refuse the folder that exists"
    cluster = spec["rayClusterSpec"]
    assert set(cluster) <= CLUSTER_FIELDS
    assert cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert set(group) <= GROUP_FIELDS
        pod = group["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    command = spec["entrypoint"].split()
    assert command[:2] == ["python", "ray_jobs/train.py"]
    experiment = read_experiment(command[2:])
    assert Path(str(experiment.output)).is_absolute()
    assert "runs" in yaml.safe_load(spec["runtimeEnvYAML"])["excludes"]


def test_every_node_has_the_ray_that_is_tested() -> None:
    (version,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert f"rayproject/ray:{version}-" in (JOBS / "Dockerfile").read_text()
    assert f'rayVersion: "{version}"' in (JOBS / "rayjob.yaml").read_text()


def test_what_the_image_copies_is_there() -> None:
    copies = re.findall(r"^COPY --chown=\S+ (.*) \S+$", (JOBS / "Dockerfile").read_text(), re.M)
    assert copies
    assert all((ROOT / name).exists() for line in copies for name in line.split())
