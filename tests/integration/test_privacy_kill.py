"""Promise 2: killed anywhere, a run that goes on never tells less privacy loss than was spent."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import same, weights, words

pytestmark = pytest.mark.slow

KILLS = 10
"""Of each of the four kinds of run."""
RUN = {
    "data__images": 90,
    "data__partition": "iid",
    "data__validation": 0.0,
    "data__min_images": 4,
    "model__width": 2,
    "federation__hospitals": 3,
    "federation__rounds": 4,
    "federation__local_steps": 3,
    "federation__weighting": "equal",
    "training__batch_size": 8,
    "training__lr": 0.01,
    "ray__enabled": False,
    "privacy__epsilon": 5.0,
    "privacy__delta": 1e-4,
    "privacy__max_grad_norm": 0.5,
}
DISTRIBUTED = {
    "secagg__protocol": "secagg_plus",
    "federation__local_steps": 2,
    "training__optimizer": "SGD",
    "faults__max_failed_rounds": 3,  # hospitals do not open a round again whose checkpoint was lost
}
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["lightning_fed.cli", "lightning_fed.studies.single", "lightning_fed.privacy.engine"]
)


def child(arguments: list[str], log: str, syncs: int | None) -> None:
    """The command line, in a process that notes each update that leaves, and ends itself before its n-th fsync."""
    from lightning_fed.cli import main
    from lightning_fed.federation.hospital import Hospital
    from lightning_fed.federation.site import Site
    from lightning_fed.studies import single

    single.write_report = lambda folder: folder  # it comes after the summary, and takes longer than a round
    fit, take, fsync, calls, taken = Site.fit, Hospital.take_update, os.fsync, [0], {}

    def seen(self: Hospital) -> Any:
        taken[self.number] = take(self)  # as it is before any mask
        return taken[self.number]

    def noted(self: Site, hospital: int, round: int, *rest: Any) -> tuple[Any, ...]:
        result = fit(self, hospital, round, *rest)
        plan = self.hospitals[hospital].images.plan
        steps = 1 if self.experiment.privacy.mechanism == "update" or plan is None else plan.length
        sha = hashlib.sha256(taken[hospital].tobytes()).hexdigest()
        line = {"hospital": hospital, "round": round, "steps": steps, "sha": sha}
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, (json.dumps(line) + "\n").encode())
        os.close(descriptor)
        return result

    def counted(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == syncs:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    Site.fit, Hospital.take_update, os.fsync = noted, seen, counted  # type: ignore[method-assign]
    with open(f"{log}.told", "a") as told, contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        code = main(arguments)
    sys.exit(code)


class Life:
    """One run that is killed now and then.

    Args:
        output: its folder. changes: to `RUN`.
    """

    def __init__(self, output: Path, **changes: object) -> None:
        self.output, self.log = output, output.with_suffix(".log")
        self.arguments = words(output, **RUN | changes)

    def live(self, seconds: float | None = None, syncs: int | None = None) -> bool:
        """Start or go on, to the end or until it is killed; whether it came to its end."""
        started = (self.output / "experiment.yaml").exists()
        if not started:
            shutil.rmtree(self.output, ignore_errors=True)
        arguments = ["run", "--resume", str(self.output)] if started else ["run", *self.arguments]
        process = PROCESSES.Process(target=child, args=(arguments, str(self.log), syncs))
        process.start()
        process.join(seconds)
        if process.is_alive():
            assert process.pid is not None
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            process.join()
        told = Path(f"{self.log}.told")
        assert process.exitcode in (0, -signal.SIGKILL), told.read_text()[-2000:] if told.exists() else ""
        self.check()
        return (self.output / "summary.json").exists()

    def check(self) -> None:
        """No ledger holds less than what left, counted by who sees everything."""
        for hospital, released in self.released().items():
            assert self.charged(hospital) >= released

    def released(self) -> dict[int, int]:
        """Steps that left each hospital; an update that leaves twice to the bit is one."""
        seen: set[tuple[int, int, str]] = set()
        count: dict[int, int] = defaultdict(int)
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        for line in map(json.loads, lines):
            key = (line["hospital"], line["round"], line["sha"])
            count[line["hospital"]] += line["steps"] if key not in seen else 0
            seen.add(key)
        return count

    def charged(self, hospital: int) -> int:
        """What the whole lines of a ledger say, read by other means than the ledger's own."""
        content = (self.output / f"hospitals/{hospital}/ledger.jsonl").read_text()
        lines = [json.loads(line) for line in content.split("\n")[:-1]]
        return sum(line["charge"]["steps"] for line in lines if "charge" in line)

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.output / "summary.json").read_text())
        return found


def lost_rounds(output: Path) -> bool:
    """Whether a round gave no new model."""
    lines = (output / "rounds.jsonl").read_text().splitlines()
    return any(json.loads(line)["aggregation"]["failed"] for line in lines)


@pytest.mark.parametrize(
    ("mechanism", "reproducible"),
    [("record", True), ("record", False), ("update", False), ("distributed", True)],
)
def test_killed_at_random_moments_it_ends_with_no_less_epsilon_than_the_run_left_alone(
    tmp_path: Path, mechanism: str, reproducible: bool
) -> None:
    changes = {"privacy__mechanism": mechanism, "privacy__reproducible": reproducible}
    changes |= DISTRIBUTED if mechanism == "distributed" else {}
    alone = Life(tmp_path / "alone", **changes)
    alone.live()  # its first start is slower, as the server of processes starts
    begun = time.monotonic()
    measured = Life(tmp_path / "measured", **changes)
    assert measured.live()
    whole = time.monotonic() - begun
    wanted = alone.summary
    assert wanted["status"] == "completed"

    dice = random.Random(f"{mechanism} {reproducible}")
    kills, number = 0, 0
    while kills < KILLS:
        number += 1
        life, ended = Life(tmp_path / f"life-{number}", **changes), False
        for _ in range(3):
            if kills < KILLS and not ended:
                by_time = dice.random() < 0.5
                moment = {"seconds": dice.uniform(0, whole)} if by_time else {"syncs": dice.randint(1, 70)}
                ended = life.live(**moment)
                kills += not ended
        assert ended or life.live()
        found = life.summary
        assert found["status"] == "completed"
        assert found["rounds"] == wanted["rounds"]
        for hospital in range(3):
            assert found["privacy"]["steps_by_hospital"][hospital] >= life.released()[hospital]
            assert (
                found["privacy"]["epsilon_by_hospital"][hospital]
                >= wanted["privacy"]["epsilon_by_hospital"][hospital]
            )
        if reproducible:
            assert found["privacy"]["epsilon_by_hospital"] == wanted["privacy"]["epsilon_by_hospital"]
        if reproducible and not lost_rounds(life.output):
            assert same(weights(life.output), weights(alone.output))
            assert life.released() == alone.released()


def test_killed_in_its_last_round_a_calibrated_run_completes(tmp_path: Path) -> None:
    """Where all of the budget is charged and not all of it is used."""
    changes = {"privacy__mechanism": "record", "privacy__reproducible": True, "federation__rounds": 1}
    alone = Life(tmp_path / "alone", **changes)
    assert alone.live()
    for syncs in (2, 4, 7, 9, 12, 15, 18):
        life = Life(tmp_path / f"life-{syncs}", **changes)
        ended = life.live(syncs=syncs)
        assert ended or life.live()
        assert life.summary["status"] == "completed"
        assert life.summary["privacy"]["epsilon_by_hospital"] == alone.summary["privacy"]["epsilon_by_hospital"]
        assert same(weights(life.output), weights(alone.output))
