"""Clipping in one backward pass, in the pattern of Opacus's hooks on a bare network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import torch
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleHooksFastGradientClipping
from torch import Tensor, nn

from lightning_fed.privacy.clipping.layers import function_of
from lightning_fed.privacy.clipping.tally import Tally


def strangers(network: nn.Module) -> list[str]:
    """Names of the modules with trainable parameters of their own that one-pass clipping does not know."""
    return [
        f"{name or 'the network itself'} ({type(module).__name__})"
        for name, module in network.named_modules()
        if next(trainable(module, recurse=False), None) is not None and function_of(module) is None
    ]


class OnePassHooks(GradSampleHooksFastGradientClipping):
    """Stands in for the forward passes of a network's layers while it trains, and adds up clipped gradients.

    The network keeps its class, its parameters and the names in its `state_dict`; `cleanup` gives it back.
    One forward pass of the network, one backward pass of the *sum* over examples of the mean over views, then
    `clipped_sums`. No parameter's `grad` is touched.

    Args:
        network: every trainable parameter of which lies in a known layer, see `strangers`.
        max_grad_norm: C, the greatest norm of an example's gradient. views: rows of a batch to an example.

    Raises:
        NotImplementedError: a layer has buffers, such as batch norm, or is not known.
        ValueError: the network has such hooks already.
    """

    def __init__(self, network: nn.Module, max_grad_norm: float, views: int = 1) -> None:
        unknown = strangers(network)
        if unknown:
            raise NotImplementedError(f"no one-pass clipping for {', '.join(unknown)}")
        self.views = views
        self.tally = Tally(views)
        self.handles: list[Any] = []
        self.layers: list[nn.Module] = []
        super().__init__(network, loss_reduction="sum", max_grad_norm=max_grad_norm)

    def add_hooks(self, **options: Any) -> None:
        """Put a function of `layers` in place of each layer's own forward pass."""
        self.layers = [
            module for module in self._module.modules() if next(trainable(module, recurse=False), None) is not None
        ]
        if any("forward" in vars(layer) for layer in self.layers):
            raise ValueError("a layer's forward pass is replaced already: clean the earlier hooks up first")
        for layer in self.layers:
            vars(layer)["forward"] = MethodType(self._forward_of(layer), layer)
        self.handles = [self._module.register_forward_pre_hook(lambda network, inputs: self._begin(network))]
        self.handles += [
            parameter.register_hook(self._refuse)  # type: ignore[no-untyped-call]
            for parameter in trainable(self._module)
        ]
        self.enable_hooks()

    def remove_hooks(self) -> None:
        """Give the layers their own forward passes back."""
        self.disable_hooks()
        for handle in self.handles:
            handle.remove()
        for layer in self.layers:
            vars(layer).pop("forward", None)
        self.tally = Tally(self.views)

    def _watches(self, module: nn.Module) -> bool:
        """Whether a forward pass now is one of training."""
        return self.hooks_enabled and module.training and torch.is_grad_enabled()

    def _begin(self, network: nn.Module) -> None:
        """A forward pass of the whole network begins: gradients of an earlier one come too late."""
        if network is self._module and self._watches(network):
            self._renew()

    def _renew(self) -> None:
        self.tally.closed = True
        self.tally = Tally(self.views)

    def _refuse(self, gradient: Tensor | None) -> None:
        """A parameter is given a gradient by autograd itself (None where its layer alone has used it)."""
        if gradient is not None and self.hooks_enabled and self.tally.rows is not None:
            raise RuntimeError(
                f"a gradient of shape {tuple(gradient.shape)} passes the clipping by: its parameter is used "
                "outside its layer, or its layer is in evaluation mode while others train"
            )

    def _forward_of(self, layer: nn.Module) -> Callable[[nn.Module, Tensor], Tensor]:
        function = function_of(layer)
        assert function is not None

        def forward(this: nn.Module, input: Tensor) -> Tensor:
            # A copy of the network takes this function along: it is not watched.
            if this is not layer or not self._watches(layer):
                own: Tensor = type(this).forward(this, input)
                return own
            self.tally.use(len(input), *trainable(layer, recurse=False))
            output: Tensor = function.apply(input, layer.weight, layer.bias, layer, self.tally)
            return output

        return forward

    def get_norm_sample(self) -> Tensor:
        """Norms float32 (examples,) of the last backward pass, over all parameters."""
        self.per_sample_gradient_norms = self.tally.norms()
        return self.per_sample_gradient_norms

    def clipped_sums(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Every trainable parameter and the sum of its clipped gradients, float32; zeros if it took no part."""
        coefficients = self.get_clipping_coef()
        tally = self.tally
        self._renew()
        for parameter in trainable(self._module):
            yield parameter, tally.sum_of(parameter, coefficients)


def trainable(module: nn.Module, recurse: bool = True) -> Iterator[nn.Parameter]:
    """A module's parameters that are not frozen."""
    return (parameter for parameter in module.parameters(recurse) if parameter.requires_grad)
