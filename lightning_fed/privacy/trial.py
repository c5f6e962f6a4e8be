"""A trial of a network before it sees private images: can one image move the clipped sum by more than C?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_fed.errors import InputError
from lightning_fed.privacy.clipping.ways import ClippedSums
from lightning_fed.privacy.engine import copy_buffers, no_gradients, refuse_other_buffers, way_of

SLACK = 1e-3
"""Of C, for rounding."""


def refuse_unbounded(network: nn.Module, images: Tensor, clipping: str) -> None:
    """Raise unless the clipped sum of images is the sum of the clipped gradients of each alone, bounded by C.

    That fails where a network mixes the images of a batch, forward or backward, and where a way of clipping takes
    a norm of less than it sums. Dropout is left out of the trial: it draws anew for each batch.

    Args:
        network: in training mode; it is changed by the trial, so give a copy. images: three or more, as it takes
            them. clipping: the way that is asked for.

    Raises:
        InputError: its images cannot be taken apart, one of them can move the sum by more than C, or a buffer
            learns from them.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise InputError(f"model: {name} depends on other images of the batch; use no norm over the batch")
    buffers = copy_buffers(network)
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    try:
        whole = ClippedSums(network, way_of(network, clipping), 1.0)
        every = range(len(images))
        bound = float(_take(whole, network, images, every)[0].median()) / 2  # so that most are clipped
        whole.set_bound(bound)
        norms, together = _take(whole, network, images, every)
        alone = [_take(whole, network, images, [place])[1] for place in every]
    except NotImplementedError as error:
        raise no_gradients(error) from error
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = str(error).strip().splitlines()[0]  # of a user's own layers, or of Opacus, in any form
        raise InputError(
            f"model: privacy.clipping '{clipping}' cannot take its images apart ({reason}); use another clipping "
            "or other layers"
        ) from error
    refuse_other_buffers(buffers, network)
    longest = max(float(torch.linalg.vector_norm(one)) for one in alone)
    apart = float(torch.linalg.vector_norm(together - torch.stack(alone).sum(0)))
    if not torch.isfinite(norms).all() or longest > bound * (1 + SLACK) or apart > bound * SLACK:
        raise InputError(
            "model: one image can move the clipped sum by more than privacy.max_grad_norm, as where the images "
            "of a batch are mixed; use no norm over the batch, and privacy.clipping one_pass"
        )


def _take(
    clipped: ClippedSums, network: nn.Module, images: Tensor, places: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Norms (places,) and the clipped sum float32 (parameters,) of the images at some places."""
    chosen = torch.tensor(list(places))
    logits = network(images[chosen])
    labels = chosen % logits.shape[1]
    clipped.backward(functional.cross_entropy(logits, labels, reduction="none"))
    norms, sums = clipped.sums()
    return norms.detach().clone(), torch.cat([total.detach().float().flatten() for _, total in sums])
