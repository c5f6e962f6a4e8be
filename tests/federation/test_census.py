"""Which processes a run has, told by their titles, and what they take."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from lightning_fed.federation.census import AGGREGATOR, DRIVER, HOSPITALS, RAY, Resident, census

WORK = "import sys; kept = b'x' * int(sys.argv[1]); files = [open('/dev/null') for _ in range(int(sys.argv[2]))]; "


@contextmanager
def titled(title: str, megabytes: int = 0, files: int = 0) -> Iterator[int]:
    """A child process of that title that holds so much, until the end."""
    script = WORK + "print(flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [title, "-c", script, str(megabytes * 10**6), str(files)],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with closing(process.stdout), closing(process.stdin):
        process.stdout.readline()
        yield process.pid
    process.wait()


def resident(process: int) -> Resident:
    return next(found for found in census() if found.process == process)


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("ray::HospitalActor", HOSPITALS),
        ("ray::HospitalActor.work", HOSPITALS),
        ("ray::Shard", AGGREGATOR),
        ("ray::Shard.add", AGGREGATOR),
        ("ray::IDLE", RAY),
        ("raylet", RAY),
        ("Shard", RAY),
    ],
)
def test_a_child_is_known_by_its_title(title: str, kind: str) -> None:
    with titled(title) as process:
        assert resident(process).kind == kind
        assert [found.kind for found in census()].count(DRIVER) == 1
        assert resident(os.getpid()).kind == DRIVER
    assert process not in {found.process for found in census()}


def test_memory_and_handles_are_those_of_the_system() -> None:
    with titled("ray::Shard") as small, titled("ray::Shard", megabytes=40, files=7) as large:
        lean, fat = resident(small), resident(large)
        assert fat.handles - lean.handles == 7
        assert fat.handles == len(list(Path(f"/proc/{large}/fd").iterdir()))
        assert 39e6 < fat.memory - lean.memory < 42e6
        assert fat.memory == pytest.approx(psutil.Process(large).memory_full_info().pss, rel=0.02)
        assert 0 < fat.libraries < fat.memory - 40e6


def test_a_child_that_has_ended_and_was_not_waited_for_is_left_out() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process.pid not in {found.process for found in census()}
    finally:
        process.wait()
