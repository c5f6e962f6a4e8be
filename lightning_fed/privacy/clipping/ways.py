"""The four ways of clipping behind one call: one pass, and Opacus's hooks, ghost clipping and functorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from opacus.grad_sample import GradSampleHooks
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleHooksFastGradientClipping
from torch import Tensor, nn

from lightning_fed.errors import DivergedError
from lightning_fed.privacy.clipping.one_pass import OnePassHooks, trainable
from lightning_fed.privacy.clipping.tally import over_views, squares_of, without_erased

WAYS = ("one_pass", "hooks", "ghost", "functorch")
Sums = Iterator[tuple[Any, Tensor]]  # parameters, with what Opacus hangs on them


class ClippedSums:
    """Sums of clipped gradients of a network in training mode, by one of the `WAYS`.

    After each forward pass, `backward` from the losses, then `sums` once.

    Args:
        network: gets the way's hooks; its parameters' `grad` is overwritten. way: see `WAYS`. max_grad_norm: C.
        views: rows of a batch to an example, next to each other; `ghost` knows one only.

    Raises:
        NotImplementedError: the network has layers whose examples cannot be told apart.
    """

    def __init__(self, network: nn.Module, way: str, max_grad_norm: float, views: int = 1) -> None:
        self.network, self.way, self.max_grad_norm, self.views = network, way, max_grad_norm, views
        self.hooks = self._hooks()

    def _hooks(self) -> Any:
        if self.way == "one_pass":
            return OnePassHooks(self.network, self.max_grad_norm, self.views)
        if self.way == "ghost":
            return GradSampleHooksFastGradientClipping(
                self.network, loss_reduction="sum", max_grad_norm=self.max_grad_norm
            )
        return GradSampleHooks(self.network, loss_reduction="sum", force_functorch=self.way == "functorch")

    def set_bound(self, max_grad_norm: float) -> None:
        """Clip to another norm from now on."""
        self.max_grad_norm = self.hooks.max_grad_norm = max_grad_norm

    def backward(self, losses: Tensor) -> None:
        """From the losses (rows,) of a forward pass: the sum over examples of the mean over views."""
        self.network.zero_grad()
        ghost = self.way == "ghost"
        (losses.sum() / self.views).backward(retain_graph=ghost)  # type: ignore[no-untyped-call]
        if ghost:
            coefficients = self.hooks.get_clipping_coef()
            if not torch.isfinite(self.hooks.per_sample_gradient_norms).all():
                raise DivergedError("an image's gradient is not finite, which ghost clipping cannot leave out")
            self.network.zero_grad()
            self.hooks.disable_hooks()
            (coefficients * losses).sum().backward()
            self.hooks.enable_hooks()

    def sums(self) -> tuple[Tensor, Sums]:
        """Norms float32 (examples,) before clipping, and each parameter that took part with its clipped sum."""
        if self.way == "one_pass":
            return self.hooks.get_norm_sample(), self.hooks.clipped_sums()
        parameters: list[Any] = list(trainable(self.network))
        if self.way == "ghost":
            sums = ((own, own.grad) for own in parameters if own.grad is not None)
            return self.hooks.per_sample_gradient_norms, sums
        return self._from_samples([own for own in parameters if own.grad_sample is not None])

    def _from_samples(self, parameters: list[Any]) -> tuple[Tensor, Sums]:
        """From Opacus's `grad_sample` (rows, *shape): views are added up before the norm is taken."""
        samples = [over_views(parameter.grad_sample, self.views) for parameter in parameters]
        self.hooks.set_grad_sample_to_none()
        norms = torch.stack([squares_of(sample) for sample in samples]).sum(0).sqrt()
        norms = torch.where(torch.isfinite(norms), norms, torch.inf)
        coefficients = (self.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
        sums = (
            torch.einsum("i,i...->...", coefficients, without_erased(sample, coefficients)) for sample in samples
        )
        return norms, zip(parameters, sums, strict=True)
