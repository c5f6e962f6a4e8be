"""What comes of a reference of Ray, where there is no cluster."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, ObjectLostError, OutOfDiskError, RayTaskError

from lightning_fed.errors import FederationError, InputError
from lightning_fed.federation.remote import LostError, fetch, put


def raising(error: Exception) -> Any:
    def call(*_: object, **__: object) -> None:
        raise error

    return call


def test_an_error_in_a_hospitals_work_is_a_loss_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process lives, but nobody knows in which state; it is ended and comes back from its own."""
    cause = RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nand a page of advice")
    monkeypatch.setattr(ray, "get", raising(RayTaskError("work", "a traceback", cause)))
    with pytest.raises(LostError, match=r"work failed \(RuntimeError: CUDA out of memory\..*GiB\)$") as met:
        fetch(None)
    assert not met.value.of_object
    assert isinstance(met.value.__cause__, RayTaskError), "--debug shows where it was raised"


@pytest.mark.parametrize("cause", [InputError("a key"), FederationError("a disk")])
def test_what_a_hospital_says_is_said_on(monkeypatch: pytest.MonkeyPatch, cause: Exception) -> None:
    monkeypatch.setattr(ray, "get", raising(RayTaskError("work", "a traceback", cause)))
    with pytest.raises(type(cause), match=str(cause)):
        fetch(None)


def test_a_process_and_an_object_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", raising(ActorDiedError()))
    with pytest.raises(LostError) as met:
        fetch(None)
    assert not met.value.of_object
    lost = ObjectLostError("00" * 28, None, "")
    monkeypatch.setattr(ray, "get", raising(RayTaskError("work", "a traceback", lost)))
    with pytest.raises(LostError) as met:
        fetch(None)
    assert met.value.of_object


def test_a_full_store_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "put", raising(OutOfDiskError("no room")))
    with pytest.raises(FederationError, match=r"object store takes nothing more .*; make room for it"):
        put(1)
