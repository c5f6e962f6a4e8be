"""Every kind of file that a user gives, damaged at random: a clear line, or the right result, and nothing else.

The experiment's YAML, npz files, checkpoints, states, ledgers and keys have theirs beside their own tests.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lightning_fed.cli import main
from lightning_fed.data.own import read_unlabelled
from lightning_fed.errors import InputError
from lightning_fed.experiment import Model, Training
from lightning_fed.models.classifier import Classifier
from lightning_fed.models.export import load_model, save_model
from lightning_fed.report.page import write_report
from lightning_fed.studies.sweep_file import read_sweep

SWEEPS = sorted((Path(__file__).parents[1] / "configs" / "sweeps").glob("*.yaml"))
FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
DAMAGE = st.tuples(
    st.sampled_from(["flip", "cut", "drop", "double"]), st.floats(0, 1, exclude_max=True), st.integers(1, 255)
)
SCALARS = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats() | st.text(max_size=8)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def damaged(content: bytes, how: tuple[str, float, int]) -> bytes:
    """Content with a byte flipped, its end cut off, a stretch dropped, or one doubled."""
    kind, share, amount = how
    place = int(share * len(content))
    if kind == "flip":
        return content[:place] + bytes([content[place] ^ amount]) + content[place + 1 :]
    if kind == "cut":
        return content[:place]
    if kind == "drop":
        return content[:place] + content[place + amount :]
    return content[: place + amount] + content[place:]


def refused_or(call: Callable[[], Any]) -> Any:
    """What a call gives, None where it refuses; any other error is the test's."""
    with contextlib.suppress(InputError):
        return call()
    return None


def sweep_words(path: Path) -> Any:
    sweep = read_sweep(str(path))
    return [sweep.words_of(point) for point in sweep.points(3, 0, "random")]


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.name)
@FEW
@given(how=DAMAGE)
def test_a_damaged_sweep_file(file: Path, tmp_path: Path, how: tuple[str, float, int]) -> None:
    (tmp_path / "sweep.yaml").write_bytes(damaged(file.read_bytes(), how))
    refused_or(lambda: sweep_words(tmp_path / "sweep.yaml"))


@FEW
@given(
    section=st.sampled_from(["method", "parameters", "command", "name", "run_cap", "metric", "early_terminate"]),
    value=ANYTHING,
)
def test_a_sweep_file_with_anything_in_a_section(tmp_path: Path, section: str, value: Any) -> None:
    content = yaml.safe_load(SWEEPS[0].read_text()) | {section: value}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content))
    refused_or(lambda: sweep_words(tmp_path / "sweep.yaml"))


@FEW
@given(key=st.sampled_from(["values", "value", "min", "max", "distribution", "mu", "sigma", "q"]), value=ANYTHING)
def test_a_sweep_parameter_with_anything_in_it(tmp_path: Path, key: str, value: Any) -> None:
    content = yaml.safe_load(SWEEPS[0].read_text())
    content["parameters"]["training.lr"] = {"distribution": "uniform", "min": 0.1, "max": 1.0, key: value}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content))
    refused_or(lambda: sweep_words(tmp_path / "sweep.yaml"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"])
@FEW
@given(how=DAMAGE)
def test_a_damaged_picture(kind: str, tmp_path: Path, how: tuple[str, float, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, kind)
    path = tmp_path / f"cell.{kind.lower()}"
    path.write_bytes(damaged(memory.getvalue(), how))
    found = refused_or(lambda: read_unlabelled(path, 28, 3))
    if found is not None:
        assert found[1].shape == (1, 28, 28, 3)


@FEW
@given(how=DAMAGE)
def test_a_damaged_npz_of_images_alone(tmp_path: Path, how: tuple[str, float, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 3), dtype=np.uint8)
    np.savez_compressed(tmp_path / "whole.npz", images=pixels)
    (tmp_path / "cells.npz").write_bytes(damaged((tmp_path / "whole.npz").read_bytes(), how))
    found = refused_or(lambda: read_unlabelled(tmp_path / "cells.npz", 28, 3))
    if found is not None:
        assert np.array_equal(found[1], pixels)


@FEW
@given(how=DAMAGE)
def test_a_damaged_model(tmp_path: Path, how: tuple[str, float, int]) -> None:
    model = Classifier(Model(width=2), Training(), size=28)
    save_model(model, tmp_path / "whole.ckpt")
    (tmp_path / "model.ckpt").write_bytes(damaged((tmp_path / "whole.ckpt").read_bytes(), how))
    found = refused_or(lambda: load_model(tmp_path / "model.ckpt"))
    if found is not None:
        pairs = zip(model.state_dict().values(), found.state_dict().values(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short finished run."""
    output = tmp_path_factory.mktemp("runs") / "run"
    words = ["--data.images=96", "--data.partition=iid", "--data.min_images=4", "--model.width=2"]
    words += ["--federation.hospitals=2", "--federation.rounds=2", "--federation.local_epochs=1"]
    assert main(["run", *words, "--ray.enabled=false", "--tracking.wandb=disabled", f"--output={output}"]) == 0
    return output


@pytest.mark.slow
@pytest.mark.parametrize("name", ["experiment.yaml", "rounds.jsonl", "summary.json"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(how=DAMAGE)
def test_a_damaged_run_folder_is_reported_or_refused(
    run: Path, tmp_path: Path, name: str, how: tuple[str, float, int]
) -> None:
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for kept in ("experiment.yaml", "rounds.jsonl", "summary.json"):
        shutil.copy(run / kept, folder / kept)
    (folder / name).write_bytes(damaged((run / name).read_bytes(), how))
    refused_or(lambda: write_report(folder))
