"""A disk that takes nothing more: writes fail in their middle, the run says so, and goes on when there is room.

A limit on the size of files stands in for the disk: the system cuts the write that passes it, as a full disk does.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_fed.cli import main
from tests.integration.conftest import same, weights, words

pytestmark = pytest.mark.slow

RUN = {
    "ray__enabled": False,
    "data__validation": 0.0,
    "model__width": 2,
    "training__optimizer": "SGD",
    "privacy__mechanism": "record",
    "privacy__noise_multiplier": 1.0,
    "privacy__reproducible": True,
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "alone"
    assert main(["run", *words(output, **RUN)]) == 0
    return output


def with_room_for(size: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, none of whose files can grow beyond a size in bytes."""

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    command = [sys.executable, "-m", "lightning_fed", *arguments]
    return subprocess.run(command, preexec_fn=limited, capture_output=True, text=True, timeout=120, check=False)


def largest(folder: Path, pattern: str) -> int:
    return max(path.stat().st_size for path in folder.glob(pattern))


@pytest.mark.parametrize(
    ("what", "share"),
    [
        ("checkpoints/round-*.pt", 0.5),
        ("model.ckpt", 1.0),
        ("report.html", 0.6),
    ],
)
def test_a_run_whose_disk_is_full_ends_in_one_line_and_goes_on_to_the_same_weights(
    alone: Path, tmp_path: Path, what: str, share: float
) -> None:
    output, size = tmp_path / "run", int(share * largest(alone, what)) - 1
    said = with_room_for(size, "run", *words(output, **RUN))
    assert said.returncode == 3, said.stderr
    assert len(said.stderr.splitlines()) == 1, said.stderr
    assert "cannot be written (File too large)" in said.stderr
    if what == "report.html":
        assert f"lightning-fed report {output}" in said.stderr
        assert main(["report", str(output)]) == 0
    else:
        assert f"--resume {output}" in said.stderr
        assert main(["run", "--resume", str(output)]) == 0
    assert (output / "report.html").exists()
    assert same(weights(output), weights(alone))
    told, wanted = (json.loads((folder / "summary.json").read_text())["privacy"] for folder in (output, alone))
    assert told["epsilon_by_hospital"] == wanted["epsilon_by_hospital"]
    assert not list(output.rglob("*.part"))
