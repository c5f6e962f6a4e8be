"""What a simulator may look at of a round's steps. None of it is covered by the guarantee."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class StepDiagnostics:
    """Norms before clipping, and signal against noise, gathered over a round.

    Args:
        max_grad_norm: C.
    """

    max_grad_norm: float
    _norms: list[Tensor] = field(default_factory=list)
    _signal: list[float] = field(default_factory=list)
    _noise: list[float] = field(default_factory=list)

    def norms(self, norms: Tensor) -> None:
        """Norms (examples,) of one batch, of which the infinite ones are left out."""
        self._norms.append(norms.detach().cpu()[torch.isfinite(norms).cpu()])

    def step(self, signal: float, noise: float) -> None:
        """Norms of one step's clipped sum and of its noise."""
        self._signal.append(signal)
        self._noise.append(noise)

    @property
    def clipped(self) -> float | None:
        """Share of the gradients that were longer than C; None where no image was sampled."""
        norms = self._all()
        return None if norms is None else float((norms > self.max_grad_norm).double().mean())

    @property
    def median_norm(self) -> float | None:
        """Median norm before clipping."""
        norms = self._all()
        return None if norms is None else float(norms.median())

    @property
    def signal_to_noise(self) -> float | None:
        """Norm of the clipped sum over that of its noise, the mean over steps; None without noise."""
        ratios = [signal / noise for signal, noise in zip(self._signal, self._noise, strict=True) if noise > 0]
        return sum(ratios) / len(ratios) if ratios else None

    def _all(self) -> Tensor | None:
        norms = torch.cat(self._norms) if self._norms else torch.zeros(0)
        return norms if len(norms) else None
