"""One torch thread, as a hospital has, so that results repeat to the bit; and which tests may run side by side."""

from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

hypothesis.settings.register_profile("lightning-fed", deadline=None, max_examples=25, print_blob=True)
hypothesis.settings.load_profile("lightning-fed")

RAY = ("integration", *(f"test_{name}" for name in ("notebooks", "paper", "sweep")))
RAY += ("test_bench", "test_bench_distributed", "test_bench_soak")
"""Folders and modules that start Ray."""
ALONE = ("test_full_disk", "test_privacy_kill", "test_wandb_agent")
"""Of these, the modules that do not."""


class ByModule(LoadScopeScheduling):
    """A module's tests run in one process, and all that start Ray in the same one."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.split("::")[0]
        return "ray" if _starts_ray(Path(module)) else module


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByModule:
    """With `-n`, in place of xdist's own."""
    return ByModule(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that start Ray begin, as they are the longest."""
    items.sort(key=lambda item: not _starts_ray(item.path))


def _starts_ray(module: Path) -> bool:
    return module.stem not in ALONE and (module.stem in RAY or module.parent.name in RAY)


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    torch.set_num_threads(1)
