"""DP-SGD in a hospital: Opacus's hooks, optimizer and accountant, made once and kept for all rounds."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from opacus import PrivacyEngine
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from lightning_fed.errors import InputError
from lightning_fed.experiment import Privacy
from lightning_fed.privacy.clipping.one_pass import strangers
from lightning_fed.privacy.clipping.ways import ClippedSums, Sums
from lightning_fed.privacy.dose import Dose
from lightning_fed.privacy.steps import StepDiagnostics
from lightning_fed.privacy.streams import Stream


class HospitalOptimizer(DPOptimizer):
    """Opacus's optimizer with noise from a secret stream, empty batches, and one noise for several microbatches.

    Args:
        optimizer: which moves the weights. dose: noise and nominal batch. max_grad_norm: C.
        gather: norms (examples,) and sums of clipped gradients of the last backward pass.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        dose: Dose,
        max_grad_norm: float,
        gather: Callable[[], tuple[Tensor, Sums]],
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=dose.noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=dose.batch,
            loss_reduction="mean",
        )
        self.gather = gather
        self.noise: Stream | None = None
        self.after_noise: Callable[[], None] | None = None
        self.diagnostics = StepDiagnostics(max_grad_norm)
        self.batch_is_empty = False

    def pre_step(self, closure: Callable[[], float] | None = None) -> bool:
        """Add up clipped gradients; at the last microbatch of a step, noise them. True where a step is due."""
        if not self.batch_is_empty:
            norms, sums = self.gather()
            self.diagnostics.norms(norms)
            for parameter, total in sums:
                before = parameter.summed_grad
                # A copy: the next microbatch may write into what was handed over.
                parameter.summed_grad = total.clone() if before is None else before.add_(total)
        if self._check_skip_next_step():
            self._is_last_step_skipped = True
            return False
        self.add_noise()
        self.scale_grad()
        if self.step_hook:
            self.step_hook(self)
        if self.after_noise is not None:
            self.after_noise()
        self._is_last_step_skipped = False
        return True

    def add_noise(self) -> None:
        """`p.grad` of every parameter: its clipped sum and Gaussian noise of multiplier * C on each coordinate."""
        assert self.noise is not None, "a round begins with its noise"
        count = sum(parameter.numel() for parameter in self.params)
        noise = self.noise.normal(count).mul_(self.noise_multiplier * self.max_grad_norm)
        signal = torch.zeros((), dtype=torch.float64)
        place = 0
        for parameter in self.params:
            part = noise[place : place + parameter.numel()].view_as(parameter)
            place += parameter.numel()
            total = parameter.summed_grad
            if total is None:
                parameter.grad = part.to(parameter)
                continue
            signal += total.detach().square().sum(dtype=torch.float64).cpu()
            parameter.grad = (total + part.to(total.device)).to(parameter.dtype)
        self.diagnostics.step(float(signal.sqrt()), float(torch.linalg.vector_norm(noise)))

    def begin_round(self, noise: Stream) -> None:
        """A round's noise; what a round that was broken off left behind goes."""
        self.noise = noise
        self.diagnostics = StepDiagnostics(self.max_grad_norm)
        self._step_skip_queue.clear()
        self._is_last_step_skipped = False
        self.zero_grad(set_to_none=True)

    @property
    def accumulated_iterations(self) -> int:
        """One: microbatches are of one sampled batch."""
        return 1


class ClippingEngine:
    """What every engine that clips image by image shares: the network's hooks, its losses, its buffers.

    Args:
        network: the bare net, whose class and names of weights stay as they are. privacy: settings.
        views: rows of a batch to an image.

    Raises:
        InputError: the network mixes images, or has parameters whose per-example gradients cannot be told.
    """

    def __init__(self, network: nn.Module, privacy: Privacy, views: int) -> None:
        self.network, self.views = network, views
        try:
            self.clipped = ClippedSums(network, way_of(network, privacy.clipping), privacy.max_grad_norm, views)
        except NotImplementedError as error:
            raise no_gradients(error) from error
        self._renew()

    def _renew(self) -> None:
        """A round begins."""
        self._losses: Tensor | None = None
        self._buffers = copy_buffers(self.network)

    def reduce(self, losses: Tensor) -> Tensor:
        """Losses (rows,) -> the sum over images of the mean over views: the loss to call `backward` with."""
        self._losses = losses
        return losses.sum() / self.views

    def refuse_running_statistics(self) -> None:
        """Raise where a buffer has changed since the round began: it would leave with the weights, without noise.

        Raises:
            InputError: such a buffer, by name.
        """
        refuse_other_buffers(self._buffers, self.network)


class RecordEngine(ClippingEngine):
    """A hospital's DP-SGD for the whole federation.

    Give the optimizer to Lightning, the losses of each batch to `reduce`, and its backward pass to `backward`.

    Args:
        network: the bare net, whose class and names of weights stay as they are.
        optimizer: which moves the weights. privacy: settings. dose: this hospital's noise.
        views: rows of a batch to an image.

    Raises:
        InputError: the network mixes images, or has parameters whose per-example gradients cannot be told.
    """

    def __init__(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, privacy: Privacy, dose: Dose, views: int = 1
    ) -> None:
        super().__init__(network, privacy, views)
        self.dose = dose
        self.optimizer = HospitalOptimizer(optimizer, dose, privacy.max_grad_norm, self.clipped.sums)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that Opacus's own generator is not cryptographic: it is not used
            self.engine = PrivacyEngine(accountant="prv")
        self.optimizer.attach_step_hook(self.engine.accountant.get_optimizer_hook_fn(sample_rate=dose.rate))

    def begin_round(self, noise: Stream, spent: int) -> None:
        """A round's noise, and the releases that were charged before it."""
        self._renew()
        self.optimizer.begin_round(noise)
        self.engine.accountant.history = [(self.dose.noise_multiplier, self.dose.rate, spent)] if spent else []

    @property
    def steps_accounted(self) -> int:
        """Steps that Opacus's accountant has seen, those of earlier rounds among them."""
        return sum(steps for _, _, steps in self.engine.accountant.history)

    def before_batch(self, rows: int, last: bool) -> None:
        """The next batch has so many rows, and is the last of its step or not."""
        self.optimizer.batch_is_empty = rows == 0
        self.optimizer.signal_skip_step(do_skip=not last)
        self._losses = None

    def backward(self, loss: Tensor) -> None:
        """The backward pass from the losses that `loss` was made of; none from an empty batch."""
        if self._losses is not None:
            self.clipped.backward(self._losses)
            self._losses = None


def no_gradients(error: NotImplementedError) -> InputError:
    """What is wrong with a network whose images cannot be told apart."""
    reason = str(error).strip().splitlines()[0]
    return InputError(f"model: it has no per-example gradients ({reason}); use norm: group")


def way_of(network: nn.Module, wanted: str) -> str:
    """The way of clipping that a network allows."""
    unknown = strangers(network) if wanted == "one_pass" else []
    if not unknown:
        return wanted
    warnings.warn(
        f"privacy.clipping: one_pass does not know {', '.join(unknown)}; Opacus's hooks are used", stacklevel=3
    )
    return "hooks"


def copy_buffers(network: nn.Module) -> dict[str, Tensor]:
    """A network's buffers by name, as they are now."""
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


def refuse_other_buffers(before: dict[str, Tensor], network: nn.Module) -> None:
    """Raise `InputError` where a buffer is not what it was: it would leave with the weights, without noise."""
    for name, buffer in network.named_buffers():
        if name not in before or not torch.equal(before[name].to(buffer), buffer):
            raise InputError(
                f"model: the buffer '{name}' keeps running statistics of images, which no noise covers; "
                "use a norm without them"
            )
