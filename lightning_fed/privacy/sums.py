"""A hospital's clipped sums at fixed weights, and the whole numbers with noise that leave it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_fed.errors import InputError
from lightning_fed.experiment import Privacy
from lightning_fed.privacy.clipping.one_pass import trainable
from lightning_fed.privacy.dose import Dose
from lightning_fed.privacy.engine import ClippingEngine
from lightning_fed.privacy.joint import variance_of_one
from lightning_fed.privacy.samplers import sampler_of
from lightning_fed.privacy.steps import StepDiagnostics
from lightning_fed.privacy.streams import Stream

Sum = NDArray[np.float64]
Integers = NDArray[np.int64]


class GradientSums(ClippingEngine):
    """Adds up clipped gradients over the loads of each Poisson sample; takes no step.

    Tell it of each batch (`before_batch`), give it the losses (`reduce`) and call `backward`; then `take`.

    Args:
        network: the bare net, whose every number that travels is a trainable weight. privacy: settings.
        views: rows of a batch to an image.

    Raises:
        InputError: the network has parameters whose per-example gradients cannot be told, or running statistics,
            frozen or shared weights, whose place in the vector would carry noise alone.
    """

    def __init__(self, network: nn.Module, privacy: Privacy, views: int = 1) -> None:
        refuse_other_entries(network)
        super().__init__(network, privacy, views)
        self.max_grad_norm = privacy.max_grad_norm
        self.begin_round()

    def begin_round(self) -> None:
        """Forget what a round that was broken off left behind."""
        self._renew()
        self.diagnostics = StepDiagnostics(self.max_grad_norm)
        self._sums: list[Sum] = []
        self._open: dict[nn.Parameter, Tensor] = {}
        self._last = True

    def before_batch(self, rows: int, last: bool) -> None:
        """The next batch has so many rows, and is the last of its sample or not."""
        self._last = last
        self._losses = None

    def backward(self, loss: Tensor) -> None:
        """The backward pass from the losses that `loss` was made of; none from an empty batch."""
        if self._losses is not None:
            self.clipped.backward(self._losses)
            norms, sums = self.clipped.sums()
            self.diagnostics.norms(norms)
            for parameter, total in sums:
                before = self._open.get(parameter)
                self._open[parameter] = total.detach().clone() if before is None else before.add_(total)
            self._losses = None
        if self._last:
            parts = [self._sum_of(parameter) for parameter in trainable(self.network)]
            self._sums.append(np.concatenate(parts))
            self._open = {}

    def _sum_of(self, parameter: nn.Parameter) -> Sum:
        total = self._open.get(parameter)
        if total is None:
            return np.zeros(parameter.numel())
        return total.cpu().numpy().astype(np.float64).ravel()

    def take(self) -> list[Sum]:
        """The clipped sums of the round's samples, float64 (parameters,) each, in the order of `state_dict()`.

        Raises:
            InputError: the network's buffers have changed, which no noise covers.
        """
        self.refuse_running_statistics()
        sums, self._sums = self._sums, []
        return sums


def refuse_other_entries(network: nn.Module) -> None:
    """Raise unless every number of the network's state is a trainable weight with one name.

    Raises:
        InputError: such a number, by name.
    """
    weights = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and name not in weights:
            raise InputError(
                "model: under privacy.mechanism 'distributed' all that travels must be trainable weights; "
                f"'{name}' is a buffer, frozen or shared; use norm: group and train all"
            )


def on_grid(total: Sum, max_grad_norm: float, dose: Dose, rounding: Stream) -> Integers:
    """A clipped sum as whole numbers: `joint.bound` of them to C, cut at `joint.clamp`, rounded up at random.

    Rounding up with a chance equal to the fraction leaves the mean as it is.

    Args:
        total: float64 (parameters,).

    Returns:
        int64 (parameters,).
    """
    joint = dose.joint
    assert joint is not None
    scaled = total * (joint.bound / max_grad_norm)
    rounded = np.floor(scaled + rounding.uniform(len(scaled)))
    return np.clip(rounded, -joint.clamp, joint.clamp).astype(np.int64)


def add_share(vector: Integers, dose: Dose, noise: Stream) -> Integers:
    """A vector (parameters,) of whole numbers with the hospital's own share of the noise on each."""
    joint = dose.joint
    assert joint is not None
    if dose.noise_multiplier == 0:
        return vector
    sampler = sampler_of(joint.distribution, variance_of_one(joint, dose.noise_multiplier))
    return vector + sampler.draw(noise, len(vector))
