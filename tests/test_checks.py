import math
from dataclasses import dataclass
from typing import Literal

import pytest

from lightning_fed.checks import in_range, literals, not_negative, one_of, positive, suggestion
from lightning_fed.errors import InputError


@pytest.mark.parametrize("value", [0, -1, -1e-9, math.nan, math.inf])
def test_positive_refuses_zero_less_and_what_is_no_number(value: float) -> None:
    with pytest.raises(InputError, match=rf"^data\.size is {value}: it must be finite and greater than 0$"):
        positive("data", images=1, size=value)


@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, math.inf])
def test_not_negative_refuses_less_than_zero_and_what_is_no_number(value: float) -> None:
    with pytest.raises(InputError, match=rf"^data\.size is {value}: it must be finite and 0 or greater$"):
        not_negative("data", size=value)


@pytest.mark.parametrize("value", [0.99, 3.01, math.nan, math.inf, -math.inf])
def test_in_range_refuses_what_lies_outside(value: float) -> None:
    with pytest.raises(InputError, match=rf"^data\.size is {value}: it must lie between 1 and 3$"):
        in_range("data", 1, 3, size=value)


def test_what_fits_is_let_through_and_an_unset_value_counts_as_fitting() -> None:
    positive("data", one=1e-9, unset=None)
    not_negative("data", zero=0)
    in_range("data", 1, 3, least=1, most=3)
    one_of("data", ["a", "b"], name="b")


@dataclass
class Choice:
    kind: Literal["round", "square"] = "round"
    number: int = 3


def test_a_literal_field_must_hold_one_of_its_choices() -> None:
    literals("shape", Choice("square"))
    with pytest.raises(InputError, match=r"shape\.kind is 'squar': did you mean 'square'\?"):
        literals("shape", Choice("squar"))
    with pytest.raises(InputError, match=r"shape\.kind is '3': choose one of round, square"):
        literals("shape", Choice(3))


def test_a_suggestion_is_the_nearest_name_whatever_its_case_or_all_names() -> None:
    assert suggestion("adm", {"Adam", "SGD"}) == "did you mean 'Adam'?"
    assert suggestion("zzz", {"b", "a"}) == "choose one of a, b"
