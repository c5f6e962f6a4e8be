"""A small experiment that a real Ray can run in seconds, and the command line as a user calls it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch

REPOSITORY = Path(__file__).resolve().parents[2]

SMALL = {
    "data.images": 240,
    "data.partition": "quantity",
    "model.width": 4,
    "training.batch_size": 16,
    "federation.hospitals": 4,
    "federation.rounds": 3,
    "federation.local_epochs": 1,
    "tracking.wandb": "disabled",
    "ray.hospitals_per_actor": 2,
}


def words(output: Path | str, **changes: object) -> list[str]:
    """Command-line words of the small experiment; `ray__enabled=False` stands for `ray.enabled`."""
    keys = SMALL | {name.replace("__", "."): value for name, value in changes.items()} | {"output": output}
    return [f"--{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in keys.items()]


def start(*arguments: str, **options: object) -> subprocess.Popen[str]:
    """`lightning-fed ARGUMENTS` in a process of its own."""
    own = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}  # as a user's shell
    environment = {**own, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "lightning_fed", *arguments],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
        **options,  # type: ignore[call-overload]
    )


def weights(output: Path) -> dict[str, torch.Tensor]:
    """The final weights of a run folder."""
    state: dict[str, torch.Tensor] = torch.load(output / "model.ckpt", weights_only=True)["state_dict"]
    return state


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def wait_for_round(output: Path, round: int, seconds: float = 120.0) -> None:
    """Until the record of a round is written."""
    end = time.monotonic() + seconds
    path = output / "rounds.jsonl"
    while not path.exists() or len(path.read_text().splitlines()) < round:
        assert time.monotonic() < end, "the run did not get there"
        time.sleep(0.02)


CPUS = 4


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """A Ray of so many CPUs, whatever the machine has, for all tests of a module that uses it."""
    ray.init(address="local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def _no_ray_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "one_ray" not in request.fixturenames:
        ray.shutdown()
