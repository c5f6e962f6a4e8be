"""Whatever goes into a release is told apart from whatever else could have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.privacy.digest import digest

PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=4))
NESTED = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


def test_a_known_digest() -> None:
    """What was charged under an earlier version must be found again."""
    value = {"optimizer": {"lr": 0.1, "betas": (0.9, 0.999), "none": None}, "step": torch.tensor(3.0)}
    assert (
        digest(value, np.arange(4, dtype=np.float32))
        == "9a5b954ec2beb5854f3b618c1fb92e01ff318f68f72ab6fe8bb96974688ff74f"
    )


def typed(value: Any) -> Any:
    """Values that are equal and of equal kinds."""
    if isinstance(value, dict):
        return {name: typed(own) for name, own in value.items()}
    if isinstance(value, list):
        return [typed(own) for own in value]
    return type(value).__name__, repr(value)


@given(NESTED, NESTED)
def test_two_values_have_the_same_digest_if_and_only_if_they_are_the_same(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) is (typed(one) == typed(other))
    assert digest([one, other]) != digest([one], other)


@given(st.dictionaries(st.text(max_size=3), PLAIN, max_size=5))
def test_the_order_of_a_mapping_does_not_count(values: dict[str, Any]) -> None:
    assert digest(dict(reversed(list(values.items())))) == digest(values)


@pytest.mark.parametrize(
    "kind", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float16]
)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (6,), (2, 3)])
def test_every_type_and_shape_of_tensor_has_its_own(kind: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.ones(shape).to(kind)
    assert digest(tensor) == digest(tensor.clone())
    assert digest(tensor) != digest(tensor.reshape(1, *shape))
    assert digest(tensor) != digest(tensor.to(torch.int32))
    if tensor.numel():
        changed = tensor.clone().reshape(-1)
        changed[-1] = 0
        assert digest(changed.reshape(shape)) != digest(tensor)


@pytest.mark.parametrize(
    "array", [np.zeros(()), np.zeros(0), np.zeros((2, 3)), np.zeros((3, 0)), np.zeros(4, bool)]
)
def test_every_shape_of_array_has_its_own(array: np.ndarray[Any, Any]) -> None:
    assert digest(array) == digest(array.copy())
    assert digest(array) != digest(array[None])
    assert digest(array) != digest(array.astype(np.float32))


def test_a_view_counts_by_its_values() -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    assert digest(whole.T) == digest(whole.T.contiguous())
    assert digest(whole[:, 1:]) == digest(whole[:, 1:].clone())
    array = np.arange(12.0).reshape(3, 4)
    assert digest(array.T) == digest(array.T.copy())
    read_only = array.copy()
    read_only.flags.writeable = False
    assert digest(read_only) == digest(array)


def test_the_least_change_of_a_weight_changes_it() -> None:
    weights = np.linspace(-1, 1, 1000, dtype=np.float32)
    changed = weights.copy()
    changed[500] = np.nextafter(changed[500], np.float32(2))
    assert digest(weights) != digest(changed)
    assert digest(np.float32([0.0])) != digest(np.float32([-0.0]))


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", np.array([object()]), lambda: None])
def test_what_it_does_not_know_is_refused_and_not_skipped(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot digest"):
        digest({"own": [value]})


def test_an_optimizers_state_has_the_same_after_it_was_stored() -> None:
    import copy
    import io

    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(3)
    optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    restored = torch.optim.AdamW([parameter])
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert digest(restored.state_dict()) == digest(copy.deepcopy(optimizer.state_dict()))
