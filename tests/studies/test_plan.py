"""What `--dry_run` tells, against the experiment that it describes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lightning_fed.experiment import Data, Experiment, Federation, Model
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
