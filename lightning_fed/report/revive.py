"""From plain values, as JSON and YAML hold them, back to the frozen records that they were written from."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def revive(kind: type[T], value: object) -> T:
    """The record of dataclass `kind` that `value` spells.

    Keys that the record does not know are left out, so that a report can be made of a newer run; missing ones
    take the record's default, or None where it allows that.

    Raises:
        ValueError: a value is missing or of another type; the message names it, such as `test.accuracy`.
    """
    return cast(T, _record(kind, value, ""))


def _record(kind: Any, value: object, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where.rstrip('.') or 'the whole'} is not a mapping")
    hints = get_type_hints(kind)
    known: dict[str, Any] = {}
    for item in fields(kind):
        name = where + item.name
        if item.name in value:
            known[item.name] = _as(hints[item.name], value[item.name], name)
        elif item.default is MISSING and item.default_factory is MISSING:
            known[item.name] = _as(hints[item.name], None, name)
    return kind(**known)


def _as(hint: Any, value: Any, where: str) -> Any:
    """`value` as the annotation `hint` wants it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return None if value is None else _as(inner[0], value, where)
    if is_dataclass(hint):
        return _record(hint, value, where + ".")
    if origin is tuple:
        return tuple(_as(inner[0], one, f"{where}[{index}]") for index, one in enumerate(_a(list, value, where)))
    if origin is dict:
        return {str(key): _as(inner[1], one, where) for key, one in _a(dict, value, where).items()}
    if origin is Literal:
        if value not in inner:
            raise ValueError(f"{where} is {value!r}, not one of {', '.join(map(str, inner))}")
        return value
    return float(_a((int, float), value, where)) if hint is float else _a(hint, value, where)


def _a(kind: Any, value: Any, where: str) -> Any:
    """`value`, when it is of `kind`; a truth value is no number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where} is {'missing' if value is None else f'damaged ({value!r:.40})'}")
    return value
