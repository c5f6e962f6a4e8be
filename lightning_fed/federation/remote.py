"""What comes of a reference of Ray: the object, an error that the user can read, or a loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayError, RayTaskError

from lightning_fed.errors import FederationError, InputError


class LostError(FederationError):
    """An actor, its node or an object is gone.

    Args:
        told: why. of_object: whether it is an object alone, of an actor that may live.
    """

    def __init__(self, told: str, of_object: bool = False) -> None:
        super().__init__(told)
        self.of_object = of_object


def put(value: Any) -> Any:
    """A reference to the value in the object store.

    Raises:
        FederationError: the store is full, and the disk to which it spills.
    """
    try:
        return ray.put(value)
    except RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise FederationError(f"Ray's object store takes nothing more ({reason}); make room for it") from error


def fetch(reference: Any, timeout: float | None = None, whose: str = "a hospital's") -> Any:
    """The object, or the objects of a list.

    Args:
        timeout: in seconds, None waits. whose: process it is, for the message.

    Raises:
        InputError, FederationError: as the actor raised it.
        LostError: the actor, its node or the object is gone, with Ray's reason; or its work raised anything else.
        GetTimeoutError: it did not come in time.
    """
    try:
        return ray.get(reference, timeout=timeout)
    except GetTimeoutError:
        raise
    except RayTaskError as error:
        if isinstance(error.cause, InputError | FederationError):
            raise error.cause from None
        if isinstance(error.cause, RayError):
            of_object = isinstance(error.cause, ObjectLostError)
            told = f"an object that a hospital sent was lost ({type(error.cause).__name__})"
            raise LostError(told, of_object) from error
        # Such as a card without memory: the process lives, but who knows in which state.
        lines = str(error.cause).strip().splitlines() or [""]
        raise LostError(f"{whose} work failed ({type(error.cause).__name__}: {lines[0]:.200})") from error
    except RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raised_here = [line for line in lines if "lightning_fed.errors.InputError:" in line]
        if raised_here:  # in the actor's construction, of which Ray keeps the text alone
            raise InputError(raised_here[-1].split("InputError:", 1)[1].strip()) from None
        told = f"{whose} process or its update was lost ({_cause(lines)})"
        raise LostError(told, isinstance(error, ObjectLostError)) from error


def _cause(lines: Sequence[str]) -> str:
    """Ray's reason in a few words: its last line, unless that is a page of advice.

    Of every process that died Ray says that memory may have been short; where it saw that, it says more.
    """
    if any("running low on memory" in line or "OutOfMemory" in line for line in lines):
        return "Ray ended it because its node was short of memory; let fewer hospitals train at the same time"
    if "worker process has died" in lines[-1]:
        return "it was killed, crashed, or ran out of memory"
    return lines[-1]
