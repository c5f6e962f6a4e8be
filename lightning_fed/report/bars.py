"""Figures of bars: hospitals, classes, and where the time went."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lightning_fed.report.canvas import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    Picture,
    entitle,
    finish,
    in_percent,
    row_height,
    sheet,
    short,
    some_of,
)
from lightning_fed.report.run import RoundLine, Run

WIDE = 9.2
LABELLED_HOSPITALS = 16  # beyond this many, numbers above the bars would run together


def draw_hospitals(run: Run, provenance: str) -> Picture:
    """Each hospital's accuracy, or its training loss where no accuracy was taken; its images below."""
    figure = sheet(WIDE, 3.6)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    title = _accuracy_bars(top, run.last) if run.last and run.last.accuracies else _loss_bars(top, run)
    _bars(below, run.images, INK, lambda count: f"{count:,.0f}")
    below.set_ylabel("images")
    below.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    below.set_xticks(some_of(run.hospitals))
    middle, half = (run.hospitals - 1) / 2, max(run.hospitals, 6) / 2 + 0.2  # one hospital's bar is no wall
    below.set_xlim(middle - half, middle + half)
    below.set_xlabel("hospital")
    entitle(top, title, provenance)
    return finish("hospitals", f"{title}, with its number of images", figure)


def _accuracy_bars(axes: Axes, line: RoundLine) -> str:
    shares = {score.hospital: score.accuracy for score in line.diagnostic.hospitals}
    _bars(axes, shares, GREEN)
    if len(shares) <= LABELLED_HOSPITALS:
        for hospital, share in shares.items():  # in one row on top, where the dashed line never crosses them
            place = axes.get_xaxis_transform()
            axes.text(hospital, 1.01, f"{share:.0%}", transform=place, ha="center", va="bottom", fontsize=8.5)
    axes.set_ylim(0, min(1.0, 1.1 * max(*shares.values(), line.released.accuracy)) or 1.0)
    public = line.released
    label = f"{public.split} split, {public.accuracy:.1%} (released)"
    axes.axhline(public.accuracy, color=ORANGE, linestyle="--", linewidth=1.4, label=label, zorder=0.5)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1.08), borderaxespad=0.2)
    in_percent(axes.yaxis)
    return f"Accuracy at each hospital, round {line.round} (diagnostic)"


def _loss_bars(axes: Axes, run: Run) -> str:
    _bars(axes, {who: fit.loss for who, fit in run.fits.items()}, GREEN, lambda loss: f"{loss:.2f}")
    axes.set_ylabel("nats")
    return "Training loss at each hospital in its latest round (diagnostic)"


def _bars(
    axes: Axes, values: dict[int, float] | dict[int, int], tone: str, text: Callable[[float], str] | None = None
) -> None:
    drawn = axes.bar(list(values), list(values.values()), color=tone, width=0.78)
    if text and len(values) <= LABELLED_HOSPITALS:
        axes.bar_label(drawn, [text(value) for value in values.values()], fontsize=8.5, padding=2, color=INK)
    axes.margins(y=0.2)
    axes.grid(axis="y")


def draw_classes(run: Run, provenance: str) -> Picture:
    """The newest model's accuracy on each class; a class without images has no bar and says so."""
    split, shares = run.class_accuracy
    figure = sheet(5.4, 1.2 + row_height(run.class_names) * len(shares))
    axes = figure.subplots()
    texts = ["no images" if share is None else f"{share:.1%}" for share in shares]
    _rows(axes, run.class_names, [share or 0.0 for share in shares], texts, [BLUE] * len(shares))
    axes.set_xlim(0, 1.14)  # the number of a full bar stands beside it
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    in_percent(axes.xaxis)
    title = f"Accuracy of each class, {split} split (released)"
    entitle(axes, title, provenance)
    alt = ", ".join(f"{name} {text}" for name, text in zip(run.class_names, texts, strict=True))
    return finish("classes", f"{title}: {alt}", figure)


SHOWN = 0.05
"""Seconds of exchanging keys from which on they are told; without keys there are some microseconds of it."""


def draw_time(run: Run, provenance: str) -> Picture:
    """Where the wall time went, and the evaluation beside it in another colour."""
    parts = time_parts(run)
    figure = sheet(5.4, 3.5)
    axes = figure.subplots()
    texts = [f"{seconds:,.{1 if seconds >= 1 else 3}f} s" for seconds in parts.values()]
    tones = [ORANGE if name == "evaluate" else BLUE for name in parts]
    names = ["evaluate (beside training)" if name == "evaluate" else name for name in parts]
    _rows(axes, names, list(parts.values()), texts, tones)
    axes.margins(x=0.2)
    axes.set_xlabel("seconds")
    entitle(axes, "Where the time went", provenance)
    return finish("time", "Seconds: " + ", ".join(f"{n} {t}" for n, t in zip(names, texts, strict=True)), figure)


def time_parts(run: Run) -> dict[str, float]:
    """Seconds of each part: of the finished run, or of the rounds so far."""
    setup = sum(line.seconds.setup for line in run.lines)
    keys = {"keys": setup} if setup > SHOWN else {}
    if run.result is None:
        kinds = ("train", "aggregate", "evaluate")
        return keys | {kind: sum(getattr(line.seconds, kind) for line in run.lines) for kind in kinds}
    spent = run.result.seconds
    rest = max(0.0, spent.total - spent.startup - spent.train - spent.aggregate - sum(keys.values()))
    parts = {"startup": spent.startup, **keys, "train": spent.train, "aggregate": spent.aggregate, "rest": rest}
    return {**parts, "evaluate": spent.evaluate}


def _rows(
    axes: Axes, names: Sequence[str], values: Sequence[float], texts: Sequence[str], tones: Sequence[str]
) -> None:
    drawn = axes.barh(range(len(values)), values, color=tones, height=0.72)
    axes.bar_label(drawn, texts, fontsize=9, padding=3, color=INK)
    axes.set_yticks(range(len(values)), [short(name) for name in names])
    axes.invert_yaxis()
    axes.grid(axis="x")
