from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lightning_fed.secagg

ROOM = Path(lightning_fed.secagg.__file__).parent
MODULES = sorted(path.stem for path in ROOM.glob("*.py"))
OTHER_ROOMS = {path.parent.name for path in ROOM.parent.glob("*/__init__.py")} - {"secagg", "experiment"}
"""The package itself names its experiment, which is plain dataclasses on these same libraries."""


def test_the_room_holds_what_is_imported_below() -> None:
    assert {"client", "server", "conductor", "shard", "additive"} <= set(MODULES)
    assert {"federation", "models", "data"} <= OTHER_ROOMS


@pytest.mark.parametrize("module", ["conductor", "all"])
def test_secagg_stands_alone_on_numpy_and_cryptography(module: str) -> None:
    names = MODULES if module == "all" else [module]
    lines = [f"import lightning_fed.secagg.{name}" for name in names if name != "__init__"]
    lines += ["import sys", "print(*sys.modules)"]
    found = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    loaded = found.stdout.split()
    assert "lightning_fed.secagg.server" in loaded
    strangers = {"torch", "lightning", "ray", "opacus", "scipy", "wandb", "matplotlib", "yaml", "pandas"}
    assert not strangers & {name.split(".")[0] for name in loaded}
    assert not OTHER_ROOMS & {name.split(".")[1] for name in loaded if name.startswith("lightning_fed.")}
