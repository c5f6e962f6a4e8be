"""A head node started as a user starts it, a run that joins it, and a job that is submitted to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.integration.conftest import REPOSITORY, start, words

pytestmark = pytest.mark.slow

RAY = str(Path(sys.executable).with_name("ray"))
# As after `. .venv/bin/activate`: a job's `python` is the one that PATH finds first.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


@dataclass(frozen=True)
class Head:
    """Addresses of a head node."""

    cluster: str
    dashboard: str


def environment() -> dict[str, str]:
    """Of a shell that has exported what the README says."""
    return {**os.environ, "RAY_AUTH_MODE": "token", "PATH": PATH}


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a user who never ran Ray, and so has no token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield Path.home()


@pytest.fixture(scope="module")
def head(home: Path) -> Iterator[Head]:
    subprocess.run([RAY, "get-auth-token", "--generate"], env=environment(), check=True, capture_output=True)
    ports = free_port(), free_port(), free_port()
    process = subprocess.Popen(
        [
            *(RAY, "start", "--head", "--block"),
            f"--port={ports[0]}",
            f"--dashboard-port={ports[1]}",
            f"--dashboard-agent-listen-port={ports[2]}",  # beside another Ray on this machine
        ],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        _wait_for(ports[1], process)
        yield Head(f"127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}")
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _wait_for(port: int, process: subprocess.Popen[str], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while True:
        assert process.poll() is None, f"the head node ended: {process.communicate()[0]}"
        assert time.monotonic() < end, "the head node did not start"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)


def submit(head: Head, *arguments: str, job: str = "train") -> subprocess.CompletedProcess[str]:
    """`ray job submit` of a script of `ray_jobs`, as the README types it."""
    command = [RAY, "job", "submit", "--address", head.dashboard, "--working-dir", str(REPOSITORY)]
    command += ["--runtime-env-json", json.dumps({"excludes": [".git", ".venv", "runs", "wandb"]})]
    command += ["--", "python", f"ray_jobs/{job}.py", *arguments]
    end = time.monotonic() + 120
    while True:
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
        starting = "No available agent to submit job" in done.stdout + done.stderr
        if not starting or time.monotonic() > end:
            return done
        time.sleep(2)  # the head node answers a little before its job agent does


def test_a_submitted_job_trains_and_succeeds(head: Head, tmp_path: Path) -> None:
    done = submit(head, *words(tmp_path / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "completed"


def test_a_submitted_job_with_a_wrong_key_fails_and_says_why(head: Head, tmp_path: Path) -> None:
    done = submit(head, *words(tmp_path / "run"), "--federation.round=3")
    assert done.returncode != 0
    assert "did you mean 'federation.rounds'?" in done.stdout + done.stderr


def test_a_submitted_sweep_runs_side_by_side_on_the_cluster(head: Head, tmp_path: Path) -> None:
    parameters = {"seed": {"values": [1, 2]}}
    content = {"method": "grid", "parameters": parameters, "command": ["lightning-fed", "run", "${args}"]}
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump(content))
    done = submit(head, str(file), *words(tmp_path / "sweep"), job="sweep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len((tmp_path / "sweep" / "sweep.csv").read_text().splitlines()) == 3


def test_a_run_joins_a_started_head_node(head: Head, tmp_path: Path) -> None:
    process = start("run", *words(tmp_path / "run", ray__address=head.cluster))
    out, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert "completed after 3 rounds" in out


def test_several_nodes_start_where_no_ray_ever_did(tmp_path: Path) -> None:
    """`ray.init` makes a machine's token; what chaos starts makes it too."""
    code = "from lightning_fed.federation.nodes import Nodes; Nodes(1).close()"
    own = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    subprocess.run(
        [sys.executable, "-c", code],
        env={**own, "HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)},
        check=True,
        timeout=120,
    )
    assert (tmp_path / ".ray" / "auth_token").exists()
