"""The processes of a run on this machine: this one, and what Ray started for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

DRIVER, HOSPITALS, AGGREGATOR, RAY = "driver", "hospitals", "aggregator", "ray"
KINDS = (DRIVER, HOSPITALS, AGGREGATOR, RAY)
ACTORS = {"HospitalActor": HOSPITALS, "Shard": AGGREGATOR}
"""By the class that Ray writes into the title of an actor's process."""


@dataclass(frozen=True)
class Resident:
    """One process.

    Args:
        kind: of `KINDS`. process: its number. memory: proportional set size, bytes. libraries: the part of it
            that is pages of files, such as libraries, which shrinks while other programs use them too.
        handles: open files, pipes and sockets.
    """

    kind: str
    process: int
    memory: int
    libraries: int
    handles: int


def census() -> list[Resident]:
    """This process and all that it started, which still live."""
    this = psutil.Process()
    found = [(this, DRIVER), *((child, _kind(child)) for child in this.children(recursive=True))]
    return [resident for process, kind in found for resident in _look(process, kind)]


def title_of(process: psutil.Process) -> str:
    """What a process of Ray calls itself: `ray::HospitalActor`, and after a dot the method at work."""
    try:
        return str((process.cmdline() or [""])[0])
    except psutil.Error:
        return ""


def _kind(process: psutil.Process) -> str:
    title = title_of(process)
    name = title.removeprefix("ray::").partition(".")[0] if title.startswith("ray::") else ""
    return ACTORS.get(name, RAY)


def _look(process: psutil.Process, kind: str) -> Iterator[Resident]:
    """The process's figures; nothing where it has ended meanwhile."""
    try:
        pages = _proportional(process.pid)
        yield Resident(kind, process.pid, pages["Pss"], pages.get("Pss_File", 0), process.num_fds())
    except (psutil.Error, OSError, KeyError):
        return


def _proportional(process: int) -> dict[str, int]:
    """Bytes by the names of proc(5), such as `Pss` and `Pss_File`."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    fields = (line.split() for line in lines)
    return {name.rstrip(":"): 1024 * int(kilobytes) for name, kilobytes, _ in fields}
