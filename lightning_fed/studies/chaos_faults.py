"""What strikes a run under trial: each fault is a real one, made by the operating system or by Ray itself."""

from __future__ import annotations

import random
import resource
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from lightning_fed.studies.chaos_life import BrokenError, Life

HOSPITALS = 4
HOSPITAL, SHARD = "ray::HospitalActor", "ray::Shard"
TRIES = 3
STOPPED = (0.5, 4.0)
"""Seconds for which a process is stopped."""


@dataclass(frozen=True)
class Fault:
    """One kind.

    Args:
        name: of it. strike: does it; False where there was nothing to strike.
        without: mechanisms and protocols that have nothing of the kind.
    """

    name: str
    strike: Callable[[Life, random.Random], bool]
    without: tuple[str, ...] = ()


def _kill_one(life: Life, dice: random.Random, title: str) -> bool:
    life.wait_for(lambda: bool(life.workers(title)))
    there = life.workers(title)
    if not there:
        return False
    try:
        dice.choice(there).kill()
    except psutil.Error:
        return False
    return True


def kill_hospital(life: Life, dice: random.Random) -> bool:
    """SIGKILL to a process of hospitals."""
    return _kill_one(life, dice, HOSPITAL)


def kill_shard(life: Life, dice: random.Random) -> bool:
    """SIGKILL to a process of the aggregator."""
    return _kill_one(life, dice, SHARD)


def stop_hospital(life: Life, dice: random.Random) -> bool:
    """A process of hospitals does not answer for a while."""
    there = life.workers(HOSPITAL)
    if not there:
        return False
    victim = dice.choice(there)
    try:
        victim.suspend()
    except psutil.Error:
        return False

    def go_on() -> None:
        try:
            victim.resume()
        except psutil.Error:
            return

    timer = threading.Timer(dice.uniform(*STOPPED), go_on)
    timer.start()
    life.wait_for(lambda: not timer.is_alive())
    timer.join()
    return True


def lose_node(life: Life, dice: random.Random) -> bool:
    """A node ends with all that is on it, and another one joins."""
    life.nodes.lose(dice.randrange(len(life.nodes.others)))
    life.nodes.add()
    return True


def kill_driver(life: Life, dice: random.Random) -> bool:
    """SIGKILL, or SIGTERM as a scheduler sends it, to the driver."""
    life.kill(dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
    return True


def fill_stores(life: Life, dice: random.Random) -> bool:
    """The object stores of all nodes are full of another program's objects for a while."""
    rounds = life.rounds + dice.randint(1, 3)
    with life.nodes.full_stores():
        life.wait_for(lambda: life.rounds >= rounds)
    return True


def fill_disk(life: Life, dice: random.Random) -> bool:
    """No file of the driver, or of a process of hospitals, can grow beyond a size: a write fails in its middle."""
    assert life.process is not None
    there = life.workers(HOSPITAL)
    victim = dice.choice(there).pid if there and dice.random() < 0.5 else life.process.pid
    most = dice.choice([0, 200, 4096])
    try:
        _, hard = resource.prlimit(victim, resource.RLIMIT_FSIZE)
        resource.prlimit(victim, resource.RLIMIT_FSIZE, (most, hard))
        rounds = life.rounds + 3
        if not life.wait_for(lambda: life.rounds >= rounds):
            return not life.folder.complete
        resource.prlimit(victim, resource.RLIMIT_FSIZE, (hard, hard))  # what was written was small enough
    except (ProcessLookupError, PermissionError):
        pass
    return False


def _newest(folder: Path, pattern: str) -> Path | None:
    return max(folder.glob(pattern), default=None)


def _damage(path: Path, dice: random.Random, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "torn":
        content = content[: dice.randrange(len(content))]
    else:
        content[dice.randrange(len(content))] ^= dice.randint(1, 255)
    path.write_bytes(content)


def damage_checkpoint(life: Life, dice: random.Random) -> bool:
    """The driver is killed, and its newest checkpoint torn or flipped: the one before it is used, and told so."""
    life.wait_for(lambda: life.rounds >= 3)
    life.kill(signal.SIGKILL)
    newest = _newest(life.output / "checkpoints", "round-*.pt")
    if newest is None or life.folder.complete:
        return False
    _damage(newest, dice, dice.choice(["torn", "flipped"]))
    before = len(life.log.read_bytes())
    life.start()
    life.wait_for(lambda: b"goes on after" in life.log.read_bytes()[before:])
    if life.lives_now and newest.name not in life.log.read_bytes()[before:].decode(errors="replace"):
        raise BrokenError(f"it went on without a word of its damaged {newest.name}")
    return True


def _resume_with(life: Life, path: Path, content: bytes, must_refuse: bool) -> None:
    """Resume with a damaged file: where it is read, that is refused by its name, and mended by putting it back."""

    def put_back() -> None:
        if str(path) not in life.last_line():
            raise BrokenError(f"it does not name its damaged {path}: {life.last_line()}")
        path.write_bytes(content)

    before, life.mended = life.rounds, put_back
    for _ in range(TRIES):  # a node that was lost a moment ago may end it before the file is read
        life.start()
        life.wait_for(lambda: life.rounds > before + 1)
        if life.lives_now:
            break
        life.ended()
        if life.mended is None or life.folder.complete:
            break
    if life.mended is not None and must_refuse:
        raise BrokenError(f"it went on with a damaged {path}")
    life.mended = None


def damage_ledger(life: Life, dice: random.Random) -> bool:
    """The driver is killed, and a hospital's ledger flipped (refused until it is put back) or torn at its end."""
    life.wait_for(lambda: life.rounds >= 3)
    life.kill(signal.SIGKILL)
    ledger = life.output / "hospitals" / str(dice.randrange(HOSPITALS)) / "ledger.jsonl"
    if not ledger.exists() or life.folder.complete:
        return False
    content = ledger.read_bytes()
    if dice.random() < 0.5:
        with ledger.open("ab") as file:
            file.write(content[: dice.randrange(1, content.index(b"\n"))])
        return True
    _damage(ledger, dice, "flipped")
    _resume_with(life, ledger, content, must_refuse=True)
    return True


def damage_state(life: Life, dice: random.Random) -> bool:
    """The driver is killed, and a hospital's newest state torn or flipped.

    One of a round that will be trained again is not read.
    """
    life.wait_for(lambda: life.rounds >= 3)
    life.kill(signal.SIGKILL)
    state = _newest(life.output / "hospitals" / str(dice.randrange(HOSPITALS)), "state-*.pt")
    if state is None or life.folder.complete:
        return False
    content = state.read_bytes()
    _damage(state, dice, dice.choice(["torn", "flipped"]))
    _resume_with(life, state, content, must_refuse=False)
    return True


FAULTS = (
    Fault("hospital killed", kill_hospital),
    Fault("hospital stopped", stop_hospital),
    Fault("node lost", lose_node),
    Fault("shard killed", kill_shard, ("plain", "additive")),
    Fault("driver killed", kill_driver),
    Fault("object store full", fill_stores),
    Fault("disk full", fill_disk),
    Fault("checkpoint damaged", damage_checkpoint),
    Fault("state damaged", damage_state),
    Fault("ledger damaged", damage_ledger, ("none",)),
)
