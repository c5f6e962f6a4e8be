"""Figures of privacy: what was spent for which accuracy, what it costs small hospitals, and what clipping did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from matplotlib.axes import Axes

from lightning_fed.report.bars import WIDE
from lightning_fed.report.canvas import BLUE, GREEN, INK, ORANGE, Picture, entitle, finish, in_percent, sheet
from lightning_fed.report.curves import MARKED_ROUNDS, SIZE, band, by_round, legend_on_top, stroke
from lightning_fed.report.run import RoundLine, Run
from lightning_fed.tracking.results import PrivacySummary

FAR = 5  # a clipping norm so many times above all norms would flatten them
NUMBERED_HOSPITALS = 12  # beyond this many, only the smallest is named
KINDS = {
    "clipped": "share that was clipped",
    "median_norm": "median norm before clipping",
    "signal_to_noise": "signal over noise",
}


def draw_spending(run: Run, provenance: str) -> list[Picture]:
    """The figures of privacy that the run has numbers for."""
    drawers = [draw_epsilon] if run.paid else []
    if any(line.released.split for line in run.paid):
        drawers.append(draw_accuracy_for_epsilon)
    if run.result and pays_by_size(run.result.privacy):
        drawers.append(draw_price)
    if kinds_of(run):
        drawers.append(draw_clipping)
    return [draw(run, provenance) for draw in drawers]


def pays_by_size(privacy: PrivacySummary) -> bool:
    """Whether hospitals of different sizes pay differently; under `update` all add the same noise."""
    alone = privacy.distribution is None
    return alone and privacy.unit == "image" and bool(privacy.noise_multiplier_by_hospital)


def kinds_of(run: Run) -> list[str]:
    """What was looked at of clipping and noise in any round; diagnostic."""
    return [kind for kind in KINDS if any(_values(line, kind) for line in run.lines)]


def draw_epsilon(run: Run, provenance: str) -> Picture:
    """Epsilon of each hospital after each round, against the budget."""
    figure = sheet(*SIZE)
    axes = figure.subplots()
    curves = list(zip(*(line.released.epsilon_by_hospital for line in run.paid), strict=False))
    most = [line.released.epsilon or 0.0 for line in run.paid]
    worst = max(range(len(curves)), key=lambda who: curves[who][-1], default=0)
    others = [curve for curve in curves if curve != curves[worst]]
    for index, curve in enumerate(others):
        label = "_" if index else "other hospitals"
        axes.plot([line.round for line in run.paid], curve, color=BLUE, alpha=0.6, linewidth=1, label=label)
    told = f"hospital {worst}, the worst in the end" if others else "every hospital"
    stroke(axes, run.paid, list(curves[worst]) if curves else most, ORANGE, told)
    _budget(axes, run)
    axes.set_ylabel("ε")
    by_round(axes, run.paid)
    entitle(axes, "Privacy spent, ε of all rounds so far", provenance)
    alt = f"Epsilon of the worst hospital: {most[0]:.2f} after the first round, {most[-1]:.2f} after the last"
    return finish("epsilon", alt, figure)


def _budget(axes: Axes, run: Run, upright: bool = False) -> None:
    """The line that may not be crossed, where there is one."""
    budget = run.plan.privacy.epsilon
    if budget is not None:
        draw = axes.axvline if upright else axes.axhline
        draw(budget, color=INK, linestyle=":", linewidth=1.6, label=f"budget, {budget:g}", zorder=0.5)


def draw_accuracy_for_epsilon(run: Run, provenance: str) -> Picture:
    """Accuracy on the public split over what the worst hospital had spent for it."""
    figure = sheet(*SIZE)
    axes = figure.subplots()
    lines = [line for line in run.paid if line.released.split]
    spent = [line.released.epsilon or 0.0 for line in lines]
    marker = "o" if len(spent) <= MARKED_ROUNDS else ""
    accuracy = [line.released.accuracy for line in lines]
    balanced = [line.released.balanced_accuracy for line in lines]
    axes.plot(spent, accuracy, color=BLUE, marker=marker, ms=3.5, label="accuracy (released)")
    axes.plot(spent, balanced, "--", color=ORANGE, marker=marker, ms=3.5, label="balanced accuracy (released)")
    _budget(axes, run, upright=True)
    axes.set_xlabel("ε of the worst hospital until then")
    axes.set_xlim(0, 1.06 * max(*spent, run.plan.privacy.epsilon or 0.0))
    axes.set_ylim(0, 1.06 * max(*accuracy, *balanced) or 1.0)
    in_percent(axes.yaxis)
    axes.grid(axis="y")
    legend_on_top(axes)
    entitle(axes, f"Accuracy for its ε, {lines[-1].released.split} split", provenance)
    alt = f"Accuracy for epsilon: {accuracy[0]:.1%} at {spent[0]:.2f}, {accuracy[-1]:.1%} at {spent[-1]:.2f}"
    return finish("accuracy_for_epsilon", alt, figure)


def draw_price(run: Run, provenance: str) -> Picture:
    """Epsilon, and the noise in the mean gradient, of each hospital over its number of images."""
    figure = sheet(WIDE, 3.3)
    left, right = figure.subplots(1, 2)
    assert run.result
    images, noise = run.result.data.images_by_hospital, noise_in_mean(run)
    smallest = min(range(len(images)), key=images.__getitem__)
    until = "ε until it was aborted" if run.untested else "ε of the whole run"
    _over_size(left, images, run.result.privacy.epsilon_by_hospital or (), until)
    _budget(left, run)
    if left.get_legend_handles_labels()[0]:
        left.legend(loc="lower right")
    _over_size(right, images, noise, "noise in the mean gradient, in C")
    entitle(left, "What each hospital pays for its size (released)", provenance)
    alt = f"The smallest hospital, {smallest}, has {images[smallest]} images and noise {noise[smallest]:.3g} C"
    return finish("price", alt, figure)


def noise_in_mean(run: Run) -> tuple[float, ...]:
    """Standard deviation of each hospital's noise on its mean gradient, in clipping norms."""
    if run.result is None:
        return ()
    privacy, sizes = run.result.privacy, run.result.data.images_by_hospital
    noise, rates = privacy.noise_multiplier_by_hospital or (), privacy.sample_rate_by_hospital or ()
    return tuple(sigma / (rate * size) for sigma, rate, size in zip(noise, rates, sizes, strict=False))


def _over_size(axes: Axes, images: Sequence[int], values: Sequence[float], name: str) -> None:
    smallest = min(range(len(images)), key=images.__getitem__)
    tones = [ORANGE if who == smallest else BLUE for who in range(len(values))]
    axes.scatter(images[: len(values)], values, c=tones, s=34)
    for who, (size, value) in enumerate(zip(images, values, strict=False)):
        if who == smallest:
            side = "right" if size > 0.3 * max(images) else "left"  # nobody stands on its left
            told, place = f"{who}, the smallest", (4 if side == "right" else -4, -15)
            axes.annotate(told, (size, value), place, textcoords="offset points", ha=side, fontsize=8.5)
        elif len(values) <= NUMBERED_HOSPITALS:
            above = sorted(images).index(size) % 2  # neighbours in turn below and above
            axes.annotate(
                f"{who}",
                (size, value),
                (0, 6 if above else -15),
                textcoords="offset points",
                ha="center",
                fontsize=8.5,
            )
    axes.set_xlim(0, 1.12 * max(images))
    axes.set_ylim(0, 1.18 * max(values, default=1.0))
    axes.set_xlabel("images of the hospital")
    axes.set_ylabel(name)
    axes.grid(axis="y")


def draw_clipping(run: Run, provenance: str) -> Picture:
    """What a simulator sees of clipping and noise by round: the hospitals' mean between least and greatest."""
    kinds = kinds_of(run)
    figure = sheet(WIDE, 3.2)
    every = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axes, kind in zip(every, kinds, strict=True):
        _clipping_panel(axes, run, kind)
    pairs = [pair for axes in every for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    handles = {label: handle for handle, label in pairs}
    figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=3)
    kept = ": not covered by the guarantee" if run.paid else ""
    entitle(every[0], f"Clipping and noise by round (diagnostic{kept})", provenance)
    return finish("clipping", "By round: " + ", ".join(KINDS[kind] for kind in kinds), figure)


def _clipping_panel(axes: Axes, run: Run, kind: str) -> None:
    looked = [line for line in run.lines if _values(line, kind)]
    band(axes, looked, lambda line: _values(line, kind), "least to greatest hospital")
    stroke(axes, looked, [fmean(_values(line, kind)) for line in looked], GREEN, "mean of hospitals")
    norm = run.plan.privacy.max_grad_norm
    if kind == "median_norm" and norm is not None:
        greatest = max(max(_values(line, kind)) for line in looked)
        if norm < FAR * greatest:
            axes.axhline(norm, color=INK, linestyle=":", linewidth=1.6, label="C, the clipping norm", zorder=0.5)
    by_round(axes, looked, legend=False)
    axes.set_title(KINDS[kind], fontsize=10, loc="left")
    if kind == "clipped":
        axes.set_ylim(0, 1.04)
        in_percent(axes.yaxis)


def _values(line: RoundLine, kind: str) -> tuple[float, ...]:
    """What the round's hospitals tell of it; those that tell nothing are left out."""
    told = (getattr(fit, kind) for fit in line.diagnostic.fits)
    return tuple(value for value in told if value is not None and math.isfinite(value))
