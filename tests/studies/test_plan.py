"""What `--dry_run` tells, against the experiment that it describes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_fed.experiment import Data, Experiment, Federation, Model
from lightning_fed.studies import pretraining
from lightning_fed.studies.plan import plan_lines

SMALL = Experiment(
    data=Data(images=160, partition="quantity", validation=0.0),
    model=Model(width=4),
    federation=Federation(hospitals=4, rounds=3, local_epochs=2),
)


def test_a_dry_run_tells_hospitals_steps_and_update_size_and_writes_nothing(tmp_path: Path) -> None:
    text = "\n".join(plan_lines(replace(SMALL, output=str(tmp_path / "run"))))
    assert "procedural blood cells, 160 training images, quantity split" in text
    assert "4 hospitals, 3 rounds" in text
    assert "no noise is added" in text
    assert not (tmp_path / "run").exists()


def test_the_steps_told_are_those_of_the_smallest_and_the_largest_hospital() -> None:
    fixed = replace(SMALL, federation=replace(SMALL.federation, local_steps=5))
    assert "5 to 5 steps at a hospital" in "\n".join(plan_lines(fixed))


def test_a_dry_run_tells_of_pretraining_and_does_not_do_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTNING_FED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pretraining, "_train", None)
    asked = replace(SMALL, model=Model(width=4, pretrained="bloodcells"))
    text = "\n".join(plan_lines(asked))
    assert "features: pretrained on 20,000 procedural cells (bloodcells): no cost in privacy" in text
    assert re.search(r"before the first round, about \d+\.\d CPU-minutes, then kept in", text)
    assert f"then kept in {tmp_path / 'cache' / 'pretrained' / 'bloodcells-'}" in text
    assert not (tmp_path / "cache").exists()
    kept = Path(text.split("then kept in ")[1].splitlines()[0])
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"")
    assert f"pretraining: done before, kept in {kept}" in plan_lines(asked)


def test_a_dry_run_tells_of_fixed_features_and_the_memory_that_they_may_take() -> None:
    def memory(name: str) -> float:
        lines = plan_lines(replace(SMALL, model=Model(name=name, width=4)))
        assert ("features: ScatterNet (fixed): no cost in privacy" in lines) is name.startswith("scatternet")
        return float(lines[-1].split("about ")[1].split(" GB")[0])

    assert memory("scatternet_linear") - memory("dpresnet") == pytest.approx(8 * 2**28 / 1e9, abs=0.11)
