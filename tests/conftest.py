"""One torch thread, as a hospital has, so that results repeat to the bit; and which tests may run side by side."""

from pathlib import Path

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("lightning-fed", deadline=None, max_examples=25, print_blob=True)
hypothesis.settings.load_profile("lightning-fed")

RAY = ("integration", *(f"test_{name}" for name in ("chaos", "notebooks", "paper", "sweep")))
RAY += ("test_bench", "test_bench_distributed", "test_bench_soak")
"""Folders and modules that start Ray."""
ALONE = ("test_full_disk", "test_privacy_kill")
"""Of these, the modules that do not."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A module's tests run in one process, and all that start Ray in the same one, which begins with them."""
    for item in items:
        group = "ray" if _starts_ray(item.path) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: not _starts_ray(item.path))


def _starts_ray(module: Path) -> bool:
    return module.stem not in ALONE and (module.stem in RAY or module.parent.name in RAY)


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    torch.set_num_threads(1)
