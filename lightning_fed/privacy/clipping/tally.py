"""What one backward pass leaves behind: per-example gradient norms, and the means to add up clipped gradients."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def full_float32(work: Callable[P, R]) -> Callable[P, R]:
    """Without TF32: a GPU would round the factors of norm and sum to ten bits, each in its way."""

    @functools.wraps(work)
    def exactly(*arguments: P.args, **options: P.kwargs) -> R:
        backends: Any = torch.backends
        kinds = backends.cudnn.conv, backends.cuda.matmul
        before = [kind.fp32_precision for kind in kinds]
        try:
            for kind in kinds:
                kind.fp32_precision = "ieee"
            return work(*arguments, **options)
        finally:
            for kind, own in zip(kinds, before, strict=True):
                kind.fp32_precision = own

    return exactly


@dataclass(frozen=True)
class Deferred:
    """A parameter whose per-example gradients were not kept.

    Args:
        squares: float32 (examples,), of their norms.
        weighted_sum: coefficients (examples,) -> the sum of the gradients times their coefficients.
        sources: tensors of which it is made. versions: theirs, when the norms were taken.
    """

    squares: Tensor
    weighted_sum: Callable[[Tensor], Tensor]
    sources: tuple[Tensor, ...]
    versions: tuple[int, ...]

    def sum(self, coefficients: Tensor) -> Tensor:
        """The weighted sum.

        Raises:
            RuntimeError: it would be of other gradients than the norms.
        """
        if self.versions != tuple(source._version for source in self.sources):
            raise RuntimeError("a layer's input was changed in place before the clipped sums were taken")
        return self.weighted_sum(coefficients)


class Tally:
    """The per-example gradients of one forward and backward pass, some kept whole and some as a recipe.

    Args:
        views: rows of a batch that are one example, next to each other.
    """

    def __init__(self, views: int = 1) -> None:
        self.views = views
        self.rows: int | None = None
        self.uses: Counter[Tensor] = Counter()
        self.kept: dict[Tensor, Tensor] = {}
        self.deferred: dict[Tensor, Deferred] = {}
        self.closed = False
        self._norms: Tensor | None = None

    def use(self, rows: int, *parameters: Tensor) -> None:
        """A layer with these parameters has seen a batch of `rows`.

        Raises:
            RuntimeError: layers see different numbers of rows, so that rows are not examples.
        """
        if self.rows is None:
            self.rows = rows
        if rows != self.rows or rows % self.views:
            raise RuntimeError(
                f"a layer sees {rows} rows where another saw {self.rows} ({self.views} to an example): "
                "the first dimension must be the batch's everywhere"
            )
        self.uses.update(parameters)

    @property
    def examples(self) -> int:
        """How many examples there are in the batch."""
        return (self.rows or 0) // self.views

    def must_keep(self, parameter: Tensor) -> bool:
        """Whether it takes part several times, so that its gradients must be added before a norm is taken."""
        return self.uses[parameter] > 1

    def keep(self, parameter: Tensor, gradients: Tensor) -> None:
        """Per-example gradients (examples, *shape), added to those of the parameter's other uses.

        Raises:
            RuntimeError: see `defer`.
        """
        self._check(parameter in self.deferred)
        gradients = gradients.float()
        before = self.kept.get(parameter)
        self.kept[parameter] = gradients if before is None else before + gradients

    def defer(
        self, parameter: Tensor, squares: Tensor, weighted_sum: Callable[[Tensor], Tensor], *sources: Tensor
    ) -> None:
        """Norms now, the sum later; see `Deferred`.

        Raises:
            RuntimeError: a second backward pass, or one of an earlier forward pass.
        """
        self._check(parameter in self.deferred or parameter in self.kept)
        self.deferred[parameter] = Deferred(
            squares, weighted_sum, sources, tuple(source._version for source in sources)
        )

    def _check(self, told: bool) -> None:
        if told or self.closed:
            raise RuntimeError("a backward pass to each forward pass, then its clipped sums, before the next one")
        self._norms = None

    def norms(self) -> Tensor:
        """Norms float32 (examples,) of the gradients over all parameters; infinite where one is not finite.

        Such an example is left out of the sums, as if it were not there: to stop because of it would tell of it.
        """
        if self._norms is None:
            self._norms = self._take_norms()
        return self._norms

    def _take_norms(self) -> Tensor:
        parts = [part.squares for part in self.deferred.values()]
        parts += [squares_of(kept) for kept in self.kept.values()]
        squares = torch.stack(parts).sum(0) if parts else torch.zeros(self.examples)
        return torch.where(torch.isfinite(squares), squares, torch.inf).sqrt()

    @torch.no_grad()
    @full_float32
    def sum_of(self, parameter: Tensor, coefficients: Tensor) -> Tensor:
        """The sum float32 of a parameter's gradients times coefficients (examples,); zeros if it took no part."""
        with torch.autocast(coefficients.device.type, enabled=False):
            if parameter in self.kept:
                kept = without_erased(self.kept[parameter].flatten(1).float(), coefficients)
                return (coefficients @ kept).view_as(parameter)
            if parameter in self.deferred:
                return self.deferred[parameter].sum(coefficients)
            return torch.zeros_like(parameter, dtype=torch.float32, requires_grad=False)


def squares_of(gradients: Tensor) -> Tensor:
    """Squared norms float32 (examples,) of gradients (examples, *shape).

    In two stages, as one long sum of squares in float32 comes out too small: by 6e-5 of 2.4 million numbers.
    """
    rows = gradients.unsqueeze(1) if gradients.dim() == 2 else gradients.flatten(2)
    norms: Tensor = torch.linalg.vector_norm(rows, dim=2, dtype=torch.promote_types(rows.dtype, torch.float32))
    return norms.float().square().sum(1)


def by_example(rows: Tensor, views: int) -> Tensor:
    """(examples * views, ...) -> (examples, views, ...)."""
    return rows.view(len(rows) // views, views, *rows.shape[1:])


def by_row(coefficients: Tensor, rows: Tensor, views: int) -> Tensor:
    """Rows (examples * views, ...) in float32, each times its example's coefficient."""
    return without_erased(rows.float(), coefficients, views) * _spread(coefficients, rows, views)


def without_erased(rows: Tensor, coefficients: Tensor, views: int = 1) -> Tensor:
    """Rows (examples * views, ...) with zeros for examples whose coefficient is 0, which may be not finite."""
    gone = coefficients == 0
    return rows.masked_fill(_spread(gone, rows, views), 0) if bool(gone.any()) else rows


def _spread(values: Tensor, rows: Tensor, views: int) -> Tensor:
    """Values (examples,) in the shape of rows (examples * views, ...)."""
    return values.repeat_interleave(views).view(-1, *[1] * (rows.dim() - 1))


def over_views(rows: Tensor, views: int) -> Tensor:
    """(examples * views, ...) -> (examples, ...), the views added up in float32."""
    return rows.float() if views == 1 else by_example(rows.float(), views).sum(1)
