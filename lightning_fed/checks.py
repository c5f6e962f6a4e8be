"""Argument checks whose keyword becomes the name in the message: `positive("data", size=0)`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from lightning_fed.errors import InputError


def positive(section: str, **values: float | None) -> None:
    """Raise `InputError` unless every value that is set is greater than zero."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise InputError(f"{section}.{name} is {value}: it must be greater than 0")


def not_negative(section: str, **values: float) -> None:
    """Raise `InputError` unless every value is zero or greater."""
    for name, value in values.items():
        if not value >= 0:
            raise InputError(f"{section}.{name} is {value}: it must be 0 or greater")


def in_range(section: str, low: float, high: float, **values: float) -> None:
    """Raise `InputError` unless every value lies in [low, high]."""
    for name, value in values.items():
        if not low <= value <= high:
            raise InputError(f"{section}.{name} is {value}: it must lie between {low:g} and {high:g}")


def one_of(section: str, choices: Iterable[str], **values: str) -> None:
    """Raise `InputError`, suggesting the nearest name, unless every value is among the choices."""
    known = list(choices)
    for name, value in values.items():
        if value not in known:
            raise InputError(f"{section}.{name} is '{value}': {suggestion(value, known)}")


def suggestion(word: str, known: Iterable[str]) -> str:
    """The nearest known word as advice: ``did you mean 'adam'?``, or the choices when none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word.lower(), [name.lower() for name in names], n=1)
    matches = [name for name in names if near and name.lower() == near[0]]
    return f"did you mean '{matches[0]}'?" if matches else "choose one of " + ", ".join(names)
