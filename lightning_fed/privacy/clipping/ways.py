"""The four ways of clipping behind one call: one pass, and Opacus's hooks, ghost clipping and functorch."""

from __future__ import annotations

from typing import Any

import torch
from opacus.grad_sample import GradSampleHooks
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleHooksFastGradientClipping
from torch import Tensor, nn

from lightning_fed.privacy.clipping.one_pass import OnePassHooks, trainable

WAYS = ("one_pass", "hooks", "ghost", "functorch")


class ClippedSums:
    """Sums of clipped gradients of a network in training mode, by one of the `WAYS`.

    Args:
        network: gets the way's hooks. way: see `WAYS`. max_grad_norm: C.
    """

    def __init__(self, network: nn.Module, way: str, max_grad_norm: float) -> None:
        self.network, self.way, self.max_grad_norm = network, way, max_grad_norm
        self.hooks = self._hooks()

    def _hooks(self) -> Any:
        if self.way == "one_pass":
            return OnePassHooks(self.network, self.max_grad_norm)
        if self.way == "ghost":
            return GradSampleHooksFastGradientClipping(
                self.network, loss_reduction="sum", max_grad_norm=self.max_grad_norm
            )
        return GradSampleHooks(self.network, loss_reduction="sum", force_functorch=self.way == "functorch")

    def take(self, losses: Tensor) -> list[Tensor]:
        """The sums, in the order of the network's parameters, from the losses (examples,) of a forward pass."""
        self.network.zero_grad()
        losses.sum().backward(retain_graph=self.way == "ghost")  # type: ignore[no-untyped-call]
        if self.way == "one_pass":
            return [total for _, total in self.hooks.clipped_sums()]
        return self._second_backward(losses) if self.way == "ghost" else self._from_samples()

    def _second_backward(self, losses: Tensor) -> list[Tensor]:
        coefficients = self.hooks.get_clipping_coef()
        self.network.zero_grad()
        self.hooks.disable_hooks()
        (coefficients * losses).sum().backward()
        self.hooks.enable_hooks()
        return [parameter.grad for parameter in trainable(self.network) if parameter.grad is not None]

    def _from_samples(self) -> list[Tensor]:
        samples: list[Tensor] = [vars(parameter)["grad_sample"] for parameter in trainable(self.network)]
        self.hooks.set_grad_sample_to_none()
        norms = torch.stack([sample.flatten(1).norm(dim=1) for sample in samples]).norm(dim=0)
        coefficients = (self.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
        return [torch.einsum("i,i...->...", coefficients, sample) for sample in samples]
