"""The figures of several runs; the only way to matplotlib of their page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_fed.report.canvas import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    Picture,
    drawing,
    entitle,
    finish,
    in_percent,
    row_height,
    sheet,
    short,
)
from lightning_fed.report.run import Run

if TYPE_CHECKING:
    from lightning_fed.report.compare import Named

WIDE, HALF = 9.2, 5.4
LOOKS = [(tone, style) for style in ("-", "--", ":") for tone in (BLUE, ORANGE, GREEN, INK)]


def draw_comparison(runs: Sequence[Named]) -> list[Picture]:
    """The figures that these runs have numbers for."""
    provenance = " · ".join(sorted({one.run.title for one in runs}))
    drawers = []
    if any(one.run.scored for one in runs):
        drawers.append(draw_rounds)
    if any(line.released.split for one in runs for line in one.run.paid):
        drawers.append(draw_privacy)
    if any(_hospitals(one.run) for one in runs):
        drawers += [draw_fairness, draw_burden]
    with drawing():
        return [draw(runs, provenance) for draw in drawers]


def draw_rounds(runs: Sequence[Named], provenance: str) -> Picture:
    """Accuracy on the public split after each round."""
    figure = sheet(WIDE, 4.0)
    axes = figure.subplots()
    for place, one in enumerate(runs):
        lines = one.run.scored
        _stroke(axes, place, one.name, [line.round for line in lines], _accuracies(one.run))
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    _finish_axes(axes)
    entitle(axes, "Accuracy by round", provenance)
    told = ", ".join(f"{one.name} {one.run.last.released.accuracy:.1%}" for one in runs if one.run.last)
    return finish("rounds", f"Accuracy after the last round: {told}", figure)


def draw_privacy(runs: Sequence[Named], provenance: str) -> Picture:
    """Accuracy over the epsilon that was spent for it."""
    figure = sheet(WIDE, 4.0)
    axes = figure.subplots()
    for place, one in enumerate(runs):
        paid = [line for line in one.run.paid if line.released.split]
        if paid:
            spent = [line.released.epsilon or 0.0 for line in paid]
            _stroke(axes, place, one.name, spent, [line.released.accuracy for line in paid])
        elif one.run.last and not one.run.paid:
            tone, _ = LOOKS[place % len(LOOKS)]
            axes.axhline(one.run.last.released.accuracy, color=tone, linestyle="-.", linewidth=1.2, label=one.name)
    axes.set_xlabel("ε of the worst hospital until then")
    axes.set_xlim(left=0)
    _finish_axes(axes)
    entitle(axes, "Accuracy for its ε", provenance)
    return finish("privacy", "Accuracy for the epsilon spent, by run", figure)


def draw_fairness(runs: Sequence[Named], provenance: str) -> Picture:
    """The accuracy at each hospital, and their mean."""
    figure, axes = _dots(runs, _hospitals, GREEN)
    for place, one in enumerate(one for one in runs if _hospitals(one.run)):
        axes.plot([fmean(_hospitals(one.run))], [place], "|", color=ORANGE, ms=18, mew=2.5)
    in_percent(axes.xaxis)
    entitle(axes, "Accuracy at each hospital (diagnostic)", provenance)
    return finish("fairness", "Accuracy at each hospital, by run", figure)


def draw_burden(runs: Sequence[Named], provenance: str) -> Picture:
    """Each hospital's share of the loss over its share of the images."""
    figure, axes = _dots(runs, burdens, BLUE)
    axes.axvline(1.0, color=INK, linestyle=":", linewidth=1.4)
    entitle(axes, "Share of the loss over share of the images (diagnostic)", provenance)
    return finish("burden", "Each hospital's share of the loss over its share of the images, by run", figure)


def _hospitals(run: Run) -> tuple[float, ...]:
    """The accuracy at each hospital that was looked at."""
    return run.last.accuracies if run.last else ()


def burdens(run: Run) -> list[float]:
    """By hospital: its loss over the mean loss, weighted by images; empty where no loss was taken."""
    scores = [score for score in run.last.diagnostic.hospitals if score.loss is not None] if run.last else []
    weights = [float(run.images.get(score.hospital, 1)) for score in scores]
    losses = [score.loss or 0.0 for score in scores]
    total = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
    return [loss * sum(weights) / total for loss in losses] if total > 0 else []


def _dots(runs: Sequence[Named], values: Callable[[Run], Sequence[float]], tone: str) -> tuple[Figure, Axes]:
    """A row for each run that looked at its hospitals, a dot for each of them."""
    looked = [one for one in runs if _hospitals(one.run)]
    figure = sheet(HALF, 1.4 + 1.3 * row_height([one.name for one in looked]) * len(looked))
    axes = figure.subplots()
    for place, one in enumerate(looked):
        found = values(one.run)
        axes.plot(found, [place] * len(found), "o", color=tone, alpha=0.55, ms=5)
    axes.set_yticks(range(len(looked)), [short(one.name) for one in looked])
    axes.set_ylim(len(looked) - 0.5, -0.5)
    axes.grid(axis="x")
    return figure, axes


def _accuracies(run: Run) -> list[float]:
    return [line.released.accuracy for line in run.scored]


def _stroke(axes: Axes, place: int, name: str, across: Sequence[float], up: Sequence[float]) -> None:
    tone, style = LOOKS[place % len(LOOKS)]
    marker = "o" if len(across) <= 25 else ""
    axes.plot(across, up, style, color=tone, marker=marker, ms=3.5, label=short(name, 32), clip_on=False)


def _finish_axes(axes: Axes) -> None:
    in_percent(axes.yaxis)
    axes.grid(axis="y")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), handlelength=2.2)
