"""The look of every figure, and how a figure becomes a file or a part of the page.

The files use middle tones on a transparent ground, so that they read on light and dark pages alike. In the page
each tone becomes a CSS variable, and the page's own light or dark palette decides.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

INK, GRID = "#7d858f", "#9aa1a9"
PLATE, NUMBER = "#f4f7fa", "#1f262d"  # the ground that numbers stand on, where middle tones would not do
BLUE, ORANGE, GREEN = "#2a87c8", "#d9731a", "#17987b"
VARIABLES = {
    INK: "var(--ink)",
    GRID: "var(--grid)",
    PLATE: "var(--card)",
    NUMBER: "var(--text)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREEN: "var(--green)",
}
STEPS = [factor * 10**power for power in range(9) for factor in (1, 2, 5)]
STYLE: Any = {  # matplotlib types its settings key by key
    "svg.fonttype": "none",  # text stays text: small files, searchable, the page's own font
    "svg.hashsalt": "lightning-fed",  # the same run gives the same bytes
    "text.parse_math": False,  # a class may be called $x$
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
}
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Picture:
    """A drawn figure: its file's name, what a screen reader says, and its two forms."""

    name: str
    alt: str
    svg: str
    png: bytes | None = None

    @property
    def inline(self) -> str:
        """The SVG as a part of the page: no XML head, the page's palette, scaled by the page."""
        body = self.svg[self.svg.index("<svg") :]
        body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
        body = re.sub(r'<g id="[^"]*"', "<g", body)  # matplotlib numbers groups alike in every figure
        body = re.sub(r"<svg[^>]*?viewBox=\"([^\"]*)\"[^>]*>", self._head, body, count=1)
        for tone, variable in VARIABLES.items():
            body = body.replace(f": {tone}", f": {variable}")
        return body

    def _head(self, found: re.Match[str]) -> str:
        return f'<svg viewBox="{found[1]}" role="img" aria-label="{escape(self.alt)}">'


@contextmanager
def drawing() -> Iterator[None]:
    """Draw and save inside this: matplotlib's settings are those of the report, and are put back after."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the viewer's font will have it
        matplotlib.rcdefaults()  # whatever the user's own matplotlibrc says
        matplotlib.rcParams.update(STYLE)
        yield


def sheet(width: float, height: float) -> Figure:
    """An empty figure, in inches, whose parts make room for each other."""
    return Figure(figsize=(width, height), layout="constrained")


def entitle(axes: Axes, title: str, provenance: str) -> None:
    """Name the figure, and say below it of which run it is: figures travel without their page."""
    figure = axes.figure
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    figure.supxlabel(textwrap.shorten(provenance, 80, placeholder=" …"), x=0.995, ha="right", fontsize=7.5)


def in_percent(axis: Axis) -> None:
    """Label the shares on an axis as `20%`, with decimals only where the ticks need them."""
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{round(100 * share, 2):g}%"))


def short(name: str, width: int = 24) -> str:
    """A name that fits beside an axis, on at most two lines."""
    plain = "".join(letter if letter.isprintable() else " " for letter in name)
    return "\n".join(textwrap.wrap(plain, width, max_lines=2, placeholder=" …"))


def row_height(names: Sequence[str]) -> float:
    """Inches for each of these names beside an axis."""
    return 0.4 if any("\n" in short(name) for name in names) else 0.29


def some_of(hospitals: int) -> range:
    """The hospitals whose numbers are written on an axis: all, or evenly spaced ones where all would not fit."""
    return range(0, hospitals, next(step for step in STEPS if hospitals / step <= 25))


def finish(name: str, alt: str, figure: Figure, png: bool = False) -> Picture:
    """The picture of a drawn figure."""
    text, image = io.StringIO(), io.BytesIO()
    figure.savefig(text, format="svg", metadata=NO_METADATA)
    if png:
        figure.savefig(image, format="png", dpi=120, metadata={"Software": None})
    return Picture(name, alt, text.getvalue(), image.getvalue() or None)
