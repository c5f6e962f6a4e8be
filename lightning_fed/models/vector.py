"""A network's weights as one flat float32 vector: what travels between hospitals and driver.

Parameters and floating-point buffers (BatchNorm's running statistics) are in it, in the order of
`state_dict()`; integer buffers (BatchNorm's counters) are each hospital's own and stay out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

Vector = NDArray[np.float32]


def travelling(network: nn.Module) -> Iterator[Tensor]:
    """The tensors that the vector holds, in its order."""
    return (tensor for tensor in network.state_dict().values() if tensor.is_floating_point())


def vector_size(network: nn.Module) -> int:
    """Length of the network's weight vector."""
    return sum(tensor.numel() for tensor in travelling(network))


def trainable_entries(network: nn.Module) -> NDArray[np.bool_]:
    """Bool (parameters,): True for parameters, False for running statistics."""
    parameters = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    return np.concatenate(
        [
            np.full(tensor.numel(), name in parameters)
            for name, tensor in network.state_dict().items()
            if tensor.is_floating_point()
        ]
    )


def to_vector(network: nn.Module) -> Vector:
    """A fresh float32 vector (parameters,) of the network's weights."""
    return np.concatenate([tensor.detach().cpu().float().numpy().ravel() for tensor in travelling(network)])


def load_vector(network: nn.Module, vector: Vector) -> None:
    """Copy a vector (parameters,), which may be read-only, into the network, in place.

    Raises:
        ValueError: the vector's length is not the network's.
    """
    if vector.shape != (vector_size(network),):
        raise ValueError(f"a vector of {vector.shape} does not fit {vector_size(network)} weights")
    start = 0
    for tensor in travelling(network):
        part = vector[start : start + tensor.numel()].reshape(tuple(tensor.shape))
        # Through NumPy where possible: torch warns of arrays that it may not write to, such as Ray's.
        if tensor.device.type == "cpu" and tensor.dtype.itemsize == 4:
            np.copyto(tensor.detach().numpy(), part)
        else:
            tensor.detach().copy_(tensor.new_tensor(part))
        start += tensor.numel()
