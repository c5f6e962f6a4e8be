import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.tracking.rounding import delta_text, epsilon_text


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [
        (5.4312, "5.44"),
        (5.9997, "6.00"),
        (6.0, "6.00"),
        (0.5, "0.50"),
        (0.0123, "0.013"),
        (0, "0.00"),
        (700.001, "700.01"),
    ],
)
def test_epsilon_is_rounded_up(epsilon: float, text: str) -> None:
    assert epsilon_text(epsilon) == text


@given(st.floats(1e-6, 1e6))
def test_what_is_written_is_never_less_and_hardly_more(epsilon: float) -> None:
    assert epsilon <= float(epsilon_text(epsilon)) <= epsilon + max(0.01, 0.1 * epsilon) + 1e-9


def test_no_bound_is_said_in_words() -> None:
    assert epsilon_text(math.inf) == "infinite"
    assert epsilon_text(math.nan) == "infinite"


def test_delta_has_three_digits_and_is_rounded_up() -> None:
    assert delta_text(1.9e-4) == "0.00019"
    assert delta_text(1 / 12000) == "8.34e-05"
    assert delta_text(1e-5) == "1e-05"
    assert delta_text(0.1234) == "0.124"
