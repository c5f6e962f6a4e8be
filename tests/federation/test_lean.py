"""Lightning without its optional luggage, in a process that has not imported it yet."""

from __future__ import annotations

import subprocess
import sys

import pytest

LEAN = """
import sys
from lightning_fed.federation.lean import lean_imports
with lean_imports():
    from lightning_fed.federation.site import Site
assert "torchvision" not in sys.modules and "scipy" not in sys.modules, "luggage"
import torchvision, scipy, matplotlib
assert torchvision.models.resnet18 is not None
from lightning_fed.models.metrics import score
import torch
assert score(torch.eye(3), torch.arange(3)).auroc == 1.0
print("fine")
"""


@pytest.mark.slow
def test_hidden_packages_stay_out_while_lightning_is_imported_and_can_be_had_afterwards() -> None:
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "fine", done.stderr


def test_what_an_actor_unpickles_first_does_not_import_lightning() -> None:
    code = (
        "import sys, lightning_fed.federation.actors, lightning_fed.federation.roster, lightning_fed.data.images\n"
        "print([name for name in ('lightning', 'torch', 'torchvision', 'wandb', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
