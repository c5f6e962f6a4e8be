"""The figure of images of each class at each hospital."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from lightning_fed.report.bars import WIDE
from lightning_fed.report.canvas import (
    BLUE,
    NUMBER,
    PLATE,
    Picture,
    entitle,
    finish,
    row_height,
    sheet,
    short,
    some_of,
)
from lightning_fed.tracking.results import DataSummary

NUMBERED_HOSPITALS = 16  # beyond this many, the numbers do not fit their cells
FAINT, FULL = 0.06, 0.75  # opacity of one image, and of the largest count, whose number must stay readable


def draw_heatmap(data: DataSummary, provenance: str) -> Picture:
    """Classes downwards, hospitals to the right; the more images, the stronger the one colour.

    Opacity carries the count, so that none melts into a light page and a dark one alike.
    """
    counts = np.array(data.classes_by_hospital, dtype=int).T
    classes, hospitals = counts.shape
    figure = sheet(WIDE, 1.3 + row_height(data.class_names) * classes)
    axes = figure.subplots()
    colours = np.broadcast_to(to_rgba(BLUE), (classes, hospitals, 4)).copy()
    colours[..., 3] = np.where(counts > 0, FAINT + (FULL - FAINT) * counts / max(1, counts.max()), 0)
    axes.set_facecolor(PLATE)
    axes.pcolormesh(colours, edgecolors="none", antialiased=True)
    if hospitals <= NUMBERED_HOSPITALS:
        _number(axes, counts)
    axes.set_yticks(np.arange(classes) + 0.5, [short(name) for name in data.class_names])
    _hospital_ticks(axes, hospitals)
    axes.invert_yaxis()
    entitle(axes, f"Training images of each class at each hospital (most: {counts.max():,})", provenance)
    alt = f"Heat map of {classes} classes at {hospitals} hospitals, 0 to {counts.max()} images in a cell"
    return finish("hospital_classes", alt, figure)


def _number(axes: Axes, counts: np.ndarray[tuple[int, ...], np.dtype[np.int_]]) -> None:
    for (row, column), count in np.ndenumerate(counts):
        axes.text(column + 0.5, row + 0.5, f"{count}", ha="center", va="center", fontsize=8.5, color=NUMBER)


def _hospital_ticks(axes: Axes, hospitals: int) -> None:
    places = some_of(hospitals)
    axes.set_xticks([place + 0.5 for place in places], [str(place) for place in places])
    axes.set_xlabel("hospital")
