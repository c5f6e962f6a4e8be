"""DP-SGD in a hospital: Opacus's hooks, optimizer and accountant, made once and kept for all rounds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from opacus import PrivacyEngine
from opacus.grad_sample import GradSampleHooks
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleHooksFastGradientClipping
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from lightning_fed.errors import InputError
from lightning_fed.experiment import Privacy
from lightning_fed.privacy.clipping.one_pass import OnePassHooks, strangers
from lightning_fed.privacy.clipping.tally import over_views
from lightning_fed.privacy.dose import Dose
from lightning_fed.privacy.steps import StepDiagnostics
from lightning_fed.privacy.streams import Stream

Sums = Iterator[tuple[nn.Parameter, Tensor]]


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
                parameter.summed_grad = total if before is None else before.add_(total)
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


class RecordEngine:
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
        self.network, self.dose, self.views = network, dose, views
        self.clipping = self._clipping(privacy)
        self.hooks = self._hooks(privacy.max_grad_norm)
        self.optimizer = HospitalOptimizer(optimizer, dose, privacy.max_grad_norm, self._gather)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that Opacus's own generator is not cryptographic: it is not used
            self.engine = PrivacyEngine(accountant="prv")
        self.optimizer.attach_step_hook(self.engine.accountant.get_optimizer_hook_fn(sample_rate=dose.rate))
        self._losses: Tensor | None = None

    def _clipping(self, privacy: Privacy) -> str:
        """The way of clipping that this network allows."""
        if privacy.clipping != "one_pass":
            return privacy.clipping
        unknown = strangers(self.network)
        if not unknown:
            return "one_pass"
        warnings.warn(
            f"privacy.clipping: one_pass does not know {', '.join(unknown)}; Opacus's hooks are used", stacklevel=2
        )
        return "hooks"

    def _hooks(self, max_grad_norm: float) -> Any:
        try:
            if self.clipping == "one_pass":
                return OnePassHooks(self.network, max_grad_norm, self.views)
            if self.clipping == "ghost":
                return GradSampleHooksFastGradientClipping(
                    self.network, loss_reduction="sum", max_grad_norm=max_grad_norm, use_ghost_clipping=True
                )
            return GradSampleHooks(
                self.network, loss_reduction="sum", force_functorch=self.clipping == "functorch"
            )
        except NotImplementedError as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"model: it has no per-example gradients ({reason}); use norm: group") from error

    def begin_round(self, noise: Stream, spent: int) -> None:
        """A round's noise, and the releases that were charged before it."""
        self.optimizer.begin_round(noise)
        self._buffers = _copy_buffers(self.network)
        self.engine.accountant.history = [(self.dose.noise_multiplier, self.dose.rate, spent)] if spent else []

    @property
    def steps_accounted(self) -> int:
        """Steps that Opacus's accountant has seen, those of earlier rounds among them."""
        return sum(steps for _, _, steps in self.engine.accountant.history)

    def refuse_running_statistics(self) -> None:
        """Raise `InputError` where a buffer is not as it was when the round began: it has no noise."""
        _refuse_other_buffers(self._buffers, self.network)

    def before_batch(self, rows: int, last: bool) -> None:
        """The next batch has so many rows, and is the last of its step or not."""
        self.optimizer.batch_is_empty = rows == 0
        self.optimizer.signal_skip_step(do_skip=not last)

    def reduce(self, losses: Tensor) -> Tensor:
        """Losses (rows,) -> the sum over images of the mean over views: the loss to call `backward` with."""
        self._losses = losses if self.clipping == "ghost" else None
        return losses.sum() / self.views

    def backward(self, loss: Tensor) -> None:
        """The backward pass, two of them for ghost clipping."""
        if self.optimizer.batch_is_empty or self._losses is None:
            loss.backward()  # type: ignore[no-untyped-call]
            return
        loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        coefficients = self.hooks.get_clipping_coef()
        self.optimizer.original_optimizer.zero_grad()
        self.hooks.disable_hooks()
        (coefficients * self._losses).sum().backward()  # type: ignore[no-untyped-call]
        self.hooks.enable_hooks()

    def _gather(self) -> tuple[Tensor, Sums]:
        if self.clipping == "one_pass":
            return self.hooks.get_norm_sample(), self.hooks.clipped_sums()
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        if self.clipping == "ghost":
            return self.hooks.per_sample_gradient_norms, (
                (own, own.grad.clone()) for own in parameters if own.grad is not None
            )  # copies, as the next microbatch's `zero_grad` writes zeros into them
        return self._gather_samples([own for own in parameters if own.grad_sample is not None])

    def _gather_samples(self, parameters: list[nn.Parameter]) -> tuple[Tensor, Sums]:
        """From Opacus's `grad_sample` (rows, *shape): views are averaged before the norm is taken."""
        gradients = [over_views(parameter.grad_sample, self.views) for parameter in parameters]
        norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        coefficients = (self.optimizer.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
        sums = (torch.einsum("i,i...->...", coefficients, gradient) for gradient in gradients)
        return norms, zip(parameters, sums, strict=True)


def refuse_mixing(network: nn.Module, images: Tensor) -> None:
    """Raise unless each image's output depends on that image alone and the network keeps nothing of it.

    Args:
        network: in training mode. images: three or more, as the network takes them.

    Raises:
        InputError: changing one image changes what comes out for another, or a buffer changes.
    """
    buffers = _copy_buffers(network)
    changed = images.clone()
    changed[0] = -changed[0] + 0.5
    state = torch.random.get_rng_state()
    with torch.no_grad():
        before = network(images)
        torch.random.set_rng_state(state)
        after = network(changed)
    torch.random.set_rng_state(state)
    scale = float(before.abs().max()) + 1e-6
    if not math.isfinite(scale) or float((before[1:] - after[1:]).abs().max()) > 1e-4 * scale:
        raise InputError(
            "model: an image's output depends on other images of the batch; use no norm over the batch"
        )
    _refuse_other_buffers(buffers, network)


def _copy_buffers(network: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


def _refuse_other_buffers(before: dict[str, Tensor], network: nn.Module) -> None:
    for name, buffer in network.named_buffers():
        if name not in before or not torch.equal(before[name], buffer):
            raise InputError(
                f"model: the buffer '{name}' keeps running statistics of images, which no noise covers; "
                "use a norm without them"
            )
