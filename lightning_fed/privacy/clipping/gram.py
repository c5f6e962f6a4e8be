"""Norms of gradients from Gram matrices, without the gradients (Goodfellow 2015, arXiv 1510.01799)."""

from __future__ import annotations

from torch import Tensor

ROUNDING = 2.0**-22
"""Relative error of float32 sums of products, as a bound on what Gram matrices may lose."""


def gram_squares(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Squared norms (examples,) of the sums over positions of input times gradient, never below the true ones.

    The products may cancel: their rounding error grows with |input|^2 |gradient|^2 and not with the norm, which
    must not come out too small. That error's bound is added.

    Args:
        inputs, outputs: Gram matrices of input and gradient, float32 (examples, positions, positions).
    """
    slack = ROUNDING * trace(inputs) * trace(outputs)
    return (inputs * outputs).sum((1, 2)).clamp_(min=0) + slack


def trace(matrices: Tensor) -> Tensor:
    """(examples, positions, positions) -> (examples,)."""
    return matrices.diagonal(dim1=1, dim2=2).sum(1)
