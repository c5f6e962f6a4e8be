import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.experiment import Training
from lightning_fed.models.schedule import Schedule


def rates(schedule: str, warmup: float, rounds: int, moments: list[float]) -> list[float]:
    found = Schedule(Training(lr=0.1, schedule=schedule, warmup_rounds=warmup), rounds)
    return [found.rate(moment) for moment in moments]


def test_a_constant_rate_stays() -> None:
    assert rates("constant", 0, 4, [0, 1.5, 4]) == [0.1, 0.1, 0.1]


def test_a_cosine_falls_from_the_rate_to_zero_over_all_rounds() -> None:
    found = rates("cosine", 0, 4, [0, 1, 2, 3, 4])
    wanted = [0.05 * (1 + math.cos(math.pi * share)) for share in (0, 0.25, 0.5, 0.75, 1)]
    assert found == pytest.approx(wanted)
    assert found[0] == 0.1
    assert found[-1] == pytest.approx(0, abs=1e-12)


def test_a_warmup_grows_linearly_and_the_cosine_takes_what_is_left() -> None:
    assert rates("cosine", 2, 6, [0, 0.5, 1, 2, 4, 6]) == pytest.approx([0, 0.025, 0.05, 0.1, 0.05, 0], abs=1e-12)
    assert rates("constant", 2, 6, [1, 2, 6]) == pytest.approx([0.05, 0.1, 0.1])


def test_a_fraction_of_a_round_may_warm_up() -> None:
    assert rates("constant", 0.5, 3, [0.25, 0.5, 1]) == pytest.approx([0.05, 0.1, 0.1])


def test_a_warmup_as_long_as_the_run_or_longer_never_divides_by_zero() -> None:
    assert rates("cosine", 3, 3, [1.5, 2.9]) == pytest.approx([0.05, 0.1 * 2.9 / 3])
    assert rates("cosine", 9, 3, [3]) == pytest.approx([0.1 / 3])


@given(
    warmup=st.floats(0, 20),
    rounds=st.integers(1, 20),
    moment=st.floats(0, 25),
    schedule=st.sampled_from(["constant", "cosine"]),
)
def test_a_rate_lies_between_zero_and_the_greatest(
    warmup: float, rounds: int, moment: float, schedule: str
) -> None:
    assert 0 <= rates(schedule, warmup, rounds, [moment])[0] <= 0.1 * (1 + 1e-12)
