"""A trial of a network before it sees private images: can one image move the clipped sum by more than C?"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_fed.errors import InputError
from lightning_fed.privacy.clipping.ways import ClippedSums
from lightning_fed.privacy.engine import copy_buffers, no_gradients, refuse_other_buffers, way_of

SLACK = 1e-3
"""Of C, for rounding."""
TURNED = 0.05
"""Of C, for what a rectifier that rounding turns may change."""


def dropouts_of(network: nn.Module) -> list[nn.Module]:
    """Its layers that leave numbers out by chance, as long as they train."""
    own = nn.modules.dropout._DropoutNd
    return [module for module in network.modules() if isinstance(module, own) and module.p > 0]


def refuse_unbounded(network: nn.Module, images: Tensor, clipping: str) -> None:
    """Raise unless the clipped sum of images is the sum of the clipped gradients of each alone, bounded by C.

    That fails where a network mixes the images of a batch, forward or backward, and where a way of clipping takes
    a norm of less than it sums. Dropout is left out of the trial: it draws anew for each batch.

    That a batch's sum is that of its images alone is asked in float64 where the network can: in float32 a batch
    rounds otherwise than one image, and now and then a rectifier falls to the other side, which moved the gradient
    by .9 % of C at one seed of 76. That none is longer than C is asked in float32 too, in which it will train.

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
    for module in dropouts_of(network):
        module.eval()
    try:
        exact = _exactly(network, images, clipping)
        rounded = _try(network, images, clipping)
    except NotImplementedError as error:
        raise no_gradients(error) from error
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = str(error).strip().splitlines()[0]  # of a user's own layers, or of Opacus, in any form
        raise InputError(
            f"model: privacy.clipping '{clipping}' cannot take its images apart ({reason}); use another clipping "
            "or other layers"
        ) from error
    refuse_other_buffers(buffers, network)
    if not (rounded.holds(SLACK) if exact is None else rounded.holds(TURNED) and exact.holds(SLACK)):
        raise InputError(
            "model: one image can move the clipped sum by more than privacy.max_grad_norm, as where the images "
            "of a batch are mixed; use no norm over the batch, and privacy.clipping one_pass"
        )


@dataclass(frozen=True)
class _Found:
    """Norms (images,), clipped sums float32 (parameters,) of all images and of each alone, and the bound."""

    bound: float
    norms: Tensor
    together: Tensor
    alone: list[Tensor]

    def holds(self, apart: float) -> bool:
        """Whether no image alone is longer than C, and all together lie within that share of C of their sum."""
        longest = max(float(torch.linalg.vector_norm(one)) for one in self.alone)
        off = float(torch.linalg.vector_norm(self.together - torch.stack(self.alone).sum(0)))
        finite = bool(torch.isfinite(self.norms).all())
        return finite and longest <= self.bound * (1 + SLACK) and off <= self.bound * apart


def _exactly(network: nn.Module, images: Tensor, clipping: str) -> _Found | None:
    """The trial in float64; None where the network is not made for that, by whatever error it says so."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _try(copy.deepcopy(network).double(), images.double(), clipping)
    except Exception:
        return None


def _try(network: nn.Module, images: Tensor, clipping: str) -> _Found:
    """The clipped sums of a network that is used up by it."""
    whole = ClippedSums(network, way_of(network, clipping), 1.0)
    every = range(len(images))
    bound = float(_take(whole, network, images, every)[0].median()) / 2  # so that most are clipped
    whole.set_bound(bound)
    norms, together = _take(whole, network, images, every)
    alone = [_take(whole, network, images, [place])[1] for place in every]
    return _Found(bound, norms, together, alone)


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
