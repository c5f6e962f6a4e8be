"""Figures by round: accuracy, loss, and how long hospitals trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lightning_fed.report.canvas import BLUE, GREEN, ORANGE, Picture, entitle, finish, in_percent, sheet
from lightning_fed.report.run import RoundLine, Run

SIZE = (5.4, 3.5)
MARKED_ROUNDS = 25  # beyond this many, markers would run together


def draw_accuracy(run: Run, provenance: str) -> Picture:
    """Accuracy on the public split, with the hospitals between worst and best where they were looked at."""
    figure = sheet(*SIZE)
    axes = figure.subplots()
    band(axes, run.scored, lambda line: line.accuracies, "worst to best hospital (diagnostic)")
    accuracy = [line.released.accuracy for line in run.scored]
    stroke(axes, run.scored, accuracy, BLUE, "accuracy (released)")
    balanced = [line.released.balanced_accuracy for line in run.scored]
    stroke(axes, run.scored, balanced, ORANGE, "balanced accuracy (released)", dashed=True)
    in_percent(axes.yaxis)
    by_round(axes, run.scored)
    entitle(axes, f"Accuracy by round, {_split(run)} split", provenance)
    alt = f"Accuracy by round: {accuracy[0]:.1%} after the first, {accuracy[-1]:.1%} after the last"
    return finish("accuracy", alt, figure, png=True)


def draw_loss(run: Run, provenance: str) -> Picture:
    """Loss on the public split beside the hospitals' mean training loss."""
    figure = sheet(*SIZE)
    axes = figure.subplots()
    train = [math.nan if line.diagnostic.train_loss is None else line.diagnostic.train_loss for line in run.lines]
    if not all(map(math.isnan, train)):
        stroke(axes, run.lines, train, GREEN, "hospitals' training loss (diagnostic)", dashed=True)
    loss = [line.released.loss for line in run.scored]
    stroke(axes, run.scored, loss, BLUE, f"loss on the {_split(run)} split (released)")
    axes.set_ylabel("nats")
    by_round(axes, run.lines)
    entitle(axes, "Loss by round", provenance)
    return finish("loss", f"Loss by round: {loss[0]:.3f} after the first, {loss[-1]:.3f} after the last", figure)


def draw_pace(run: Run, provenance: str) -> Picture:
    """How long a round's training took, and the fastest and slowest hospital in it."""
    figure = sheet(*SIZE)
    axes = figure.subplots()
    band(
        axes,
        run.lines,
        lambda line: tuple(fit.seconds for fit in line.diagnostic.fits),
        "fastest to slowest hospital (diagnostic)",
    )
    wall = [line.seconds.train for line in run.lines]
    stroke(axes, run.lines, wall, BLUE, "all hospitals of the round, wall time")
    axes.set_ylabel("seconds of training")
    by_round(axes, run.lines)
    entitle(axes, "Training time by round", provenance)
    return finish("pace", f"Training took {wall[-1]:.1f} seconds in the last round", figure)


def stroke(
    axes: Axes, lines: Sequence[RoundLine], values: list[float], tone: str, label: str, dashed: bool = False
) -> None:
    """One number of each round."""
    marker = "o" if len(lines) <= MARKED_ROUNDS else ""
    rounds = [line.round for line in lines]
    axes.plot(rounds, values, "--" if dashed else "-", color=tone, marker=marker, ms=3.5, label=label)


def band(
    axes: Axes, lines: Sequence[RoundLine], values: Callable[[RoundLine], tuple[float, ...]], label: str
) -> None:
    """From the least to the greatest value of each round that has any; one round has a stroke, not an area."""
    looked = [line for line in lines if values(line)]
    if not looked:
        return
    rounds = [line.round for line in looked]
    low, high = [min(values(line)) for line in looked], [max(values(line)) for line in looked]
    if len(looked) == 1:
        axes.vlines(rounds, low, high, color=GREEN, alpha=0.35, linewidth=8, label=label)
        axes.plot(rounds * 2, low + high, "_", color=GREEN, ms=14)
        return
    axes.fill_between(rounds, low, high, color=GREEN, alpha=0.22, linewidth=0, label=label)
    for edge in (low, high):
        axes.plot(rounds, edge, color=GREEN, alpha=0.55, linewidth=0.8)


def by_round(axes: Axes, lines: Sequence[RoundLine], legend: bool = True) -> None:
    """Rounds to the right, from zero upwards, the legend on top."""
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set_xlim(lines[0].round - 0.5, lines[-1].round + 0.5)
    highest = axes.dataLim.y1 if math.isfinite(axes.dataLim.y1) else 0.0  # a diverged run has no finite loss
    axes.set_ylim(0, 1.06 * highest or 1.0)
    axes.grid(axis="y")
    if legend:
        legend_on_top(axes)


def legend_on_top(axes: Axes) -> None:
    """Above the lines, which it never covers."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, handlelength=2.2)


def _split(run: Run) -> str:
    return run.scored[-1].released.split
