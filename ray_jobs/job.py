"""What the jobs share: our command line on the cluster that runs the job, with paths that every node can reach.

A job works in an uploaded copy of the working directory that goes away with it: a relative folder would be lost.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lightning_fed.cli import main

PATHS = ("--output", "--data.root", "--resume", "--model.start")


def run_job(command: str, words: Sequence[str]) -> int:
    """Run `lightning-fed COMMAND` here: its exit code, 2 where a path is relative or `--output` is missing.

    Args:
        command: `run`, `sweep` or `paper`. words: as on the command line.
    """
    paths = [name for name in PATHS if command == "run" or name != "--resume"]
    for name, value in _named(words, paths):
        if not Path(value).is_absolute():
            return _refuse(f"{name} {value}: a job needs an absolute path that every node can read and write")
    names = {name for name, _ in _named(words, paths)}
    if not names & {"--output", "--resume"} and "--help" not in words:
        return _refuse("--output is missing: name an absolute folder that every node can read and write")
    address = [] if any(word.startswith("--ray.address") for word in words) else ["--ray.address", "auto"]
    return main([command, *words, *address])


def _named(words: Sequence[str], names: Sequence[str]) -> list[tuple[str, str]]:
    """The values of some words, given as `--name VALUE` or `--name=VALUE`."""
    found = []
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            found.append((name, value if equals else "".join(words[place + 1 : place + 2])))
    return found


def _refuse(told: str) -> int:
    print(f"lightning-fed: {told}", file=sys.stderr)
    return 2
