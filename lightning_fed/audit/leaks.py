"""Numbers that depend on private images and that no guarantee covers, by their names in a run's files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

UNKNOWN = "not known to this audit, and so taken for private"

Rules = Mapping[str, str | None]
"""From the beginning of a dotted name to why it is not covered, None where it is public or covered."""


@dataclass(frozen=True)
class Leak:
    """Some numbers of one name.

    Args:
        file: which holds them. name: dotted, `[]` for each element of a list. numbers: how many. why: in words.
    """

    file: str
    name: str
    numbers: int
    why: str


def leaks_in(file: str, values: Any, rules: Rules) -> list[Leak]:
    """What of nested plain values is not covered.

    The longest rule that a name begins with decides; a number without a rule is told too.
    """
    counted: dict[str, int] = {}
    for name in _numbers(values, ""):
        counted[name] = counted.get(name, 0) + 1
    found = ((name, count, _rule(name, rules)) for name, count in counted.items())
    return [Leak(file, name, count, why) for name, count, why in found if why is not None]


def leaks_among(file: str, names: Mapping[str, int], rules: Rules) -> list[Leak]:
    """The same of names that are known with how often they occur."""
    found = ((name, count, _rule(name, rules)) for name, count in names.items())
    return [Leak(file, name, count, why) for name, count, why in found if why is not None]


def _rule(name: str, rules: Rules) -> str | None:
    fitting = [rule for rule in rules if name == rule or name.startswith((rule + ".", rule + "[", rule + "/"))]
    return rules[max(fitting, key=len)] if fitting else UNKNOWN


def _numbers(values: Any, name: str) -> Iterator[str]:
    """The name of each number, once for each."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _numbers(value, f"{name}.{key}" if name else str(key))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _numbers(value, f"{name}[]")
    elif isinstance(values, int | float) and not isinstance(values, bool):
        yield name
    elif hasattr(values, "numel"):  # a tensor
        yield from [name] * min(int(values.numel()), 1)
