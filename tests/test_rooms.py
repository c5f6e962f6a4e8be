"""The house of the README: who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "lightning_fed"
MODULES = sorted(PACKAGE.rglob("*.py"))
HOMES = {"ray": "federation", "wandb": "tracking", "opacus": "privacy", "medmnist": "data"}
BELOW: dict[str, set[str]] = {
    "secagg": set(),
    "experiment": {"secagg"},
    "data": {"experiment"},
    "models": {"experiment"},
    "privacy": {"experiment"},
    "tracking": {"experiment"},
    "report": {"experiment", "tracking"},
    "audit": set(),
    "federation": {"experiment", "data", "models", "privacy", "secagg", "tracking"},
    "studies": {"experiment", "data", "models", "privacy", "secagg", "tracking", "federation", "report", "audit"},
}


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def room(path: Path) -> str:
    """The folder of the package in which a module stands, empty for the top."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_library_is_imported_in_its_own_room_only(path: Path) -> None:
    strangers = [
        name for name in imported(path) if name.split(".")[0] in HOMES and room(path) != HOMES[name.split(".")[0]]
    ]
    assert strangers == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_between_rooms_run_downwards_only(path: Path) -> None:
    here = room(path)
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("lightning_fed.")}
    if here:
        assert (rooms & BELOW.keys()) - {here} <= BELOW[here]


def test_every_room_of_the_package_is_on_the_map() -> None:
    assert {room(path) for path in MODULES} - {""} == BELOW.keys()
