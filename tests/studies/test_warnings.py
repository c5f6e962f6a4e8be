"""What whoever starts a run is told beside its errors."""

from __future__ import annotations

import pytest

from lightning_fed.arguments import read_experiment
from lightning_fed.studies.single import _warnings

PRIVATE = ["--privacy.mechanism", "record", "--privacy.epsilon", "6", "--data.validation", "0"]
SLOW = ["--federation.over_selection", "1.5", "--federation.participation", "0.5"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--privacy.epsilon", "6"], "privacy.epsilon is not used: nothing adds noise"),
        (["--faults.poison.hospitals", "[1,2]"], "faults.poison: what hospitals 1, 2 send is poisoned"),
        ([*PRIVATE, "--federation.round_timeout", "60"], "depends on how long hospitals train"),
        ([*PRIVATE, *SLOW], "depends on how long hospitals train"),
    ],
)
def test_a_doubtful_choice_is_told(words: list[str], told: str) -> None:
    experiment = read_experiment(words)
    assert [warning for warning in _warnings(experiment, experiment) if told in warning]


@pytest.mark.parametrize(
    "words",
    [
        [],
        PRIVATE,
        ["--federation.round_timeout", "60"],
        [*PRIVATE, *SLOW, "--faults.stragglers.seconds_per_image", "0.1"],
    ],
)
def test_nothing_is_told_without_a_reason(words: list[str]) -> None:
    experiment = read_experiment(words)
    assert not list(_warnings(experiment, experiment))
