"""Norms of gradients from Gram matrices, without the gradients (Goodfellow 2015, arXiv 1510.01799)."""

from __future__ import annotations

import math

from torch import Tensor

ROUNDING = 2.0**-22
"""Relative error of one float32 product and its addition, twice over."""


def gram_squares(inputs: Tensor, outputs: Tensor, length: int) -> Tensor:
    """Squared norms (examples,) of the sums over positions of input times gradient, not below the true ones.

    The products may cancel: their rounding error grows with |input|^2 |gradient|^2 and not with the norm, which
    must not come out too small. A bound on that error is added. An inner product of d numbers is wrong by
    sqrt(d) roundings where they are independent (Higham & Mary 2019, SIAM J. Sci. Comput. 41(5)); the kernels
    add in blocks and stay below it.

    Args:
        inputs, outputs: Gram matrices of input and gradient, float32 (examples, positions, positions).
        length: of the longest inner product in them.
    """
    slack = ROUNDING * math.sqrt(length) * trace(inputs) * trace(outputs)
    return (inputs * outputs).sum((1, 2)).clamp_(min=0) + slack


def trace(matrices: Tensor) -> Tensor:
    """(examples, positions, positions) -> (examples,)."""
    return matrices.diagonal(dim1=1, dim2=2).sum(1)
