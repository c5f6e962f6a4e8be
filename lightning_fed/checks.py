"""Argument checks whose keyword becomes the name in the message: `positive("data", size=0)`."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lightning_fed.errors import InputError


def number(section: str, name: str, value: Any) -> None:
    """Raise `InputError` unless a value is a number: from Python, a dataclass takes anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{section}.{name} is {value!r}: it must be a number")


def positive(section: str, **values: float | None) -> None:
    """Raise `InputError` unless every value that is set is finite and greater than zero."""
    for name, value in values.items():
        if value is None:
            continue
        number(section, name, value)
        if not 0 < value < math.inf:
            raise InputError(f"{section}.{name} is {value}: it must be finite and greater than 0")


def not_negative(section: str, **values: float) -> None:
    """Raise `InputError` unless every value is finite and zero or greater."""
    for name, value in values.items():
        number(section, name, value)
        if not 0 <= value < math.inf:
            raise InputError(f"{section}.{name} is {value}: it must be finite and 0 or greater")


def in_range(section: str, low: float, high: float, **values: float) -> None:
    """Raise `InputError` unless every value lies in [low, high]."""
    for name, value in values.items():
        number(section, name, value)
        if not low <= value <= high:
            raise InputError(f"{section}.{name} is {value}: it must lie between {low:g} and {high:g}")


def one_of(section: str, choices: Iterable[str], **values: str) -> None:
    """Raise `InputError`, suggesting the nearest name, unless every value is among the choices."""
    known = list(choices)
    for name, value in values.items():
        if value not in known:
            raise InputError(f"{section}.{name} is '{value}': {suggestion(value, known)}")


def literals(section: str, settings: Any) -> None:
    """Raise `InputError` unless every field of a dataclass that is typed `Literal` holds one of its choices.

    One that may also be None may be None.
    """
    for name, hint in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if value is None and type(None) in get_args(hint):
            continue
        for kind in (hint, *get_args(hint)):
            if get_origin(kind) is Literal:
                one_of(section, get_args(kind), **{name: value})


def suggestion(word: str, known: Iterable[str]) -> str:
    """The nearest known word as advice: ``did you mean 'adam'?``, or the choices when none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(str(word).lower(), [name.lower() for name in names], n=1)
    matches = [name for name in names if near and name.lower() == near[0]]
    shown = [name for name in names if "." not in name]  # of dotted keys their sections
    return f"did you mean '{matches[0]}'?" if matches else "choose one of " + ", ".join(shown or names)
