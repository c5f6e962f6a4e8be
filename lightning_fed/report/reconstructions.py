"""The picture of what an attacker finds in gradients: images, and below them what was found, by what had left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_fed.report.canvas import Picture, drawing, entitle, finish, sheet, short
from lightning_fed.tracking.audits import INVERSION

MOST = 8
"""Images beside each other."""


@dataclass(frozen=True)
class Row:
    """Images in [-1, 1] (images, channels, height, width), what they are, and each one's SSIM if it was found."""

    title: str
    images: NDArray[np.float32]
    scores: Sequence[float] = ()


def draw_rows(rows: Sequence[Row], provenance: str) -> Picture:
    """The rows below each other."""
    columns = min(MOST, max(len(row.images) for row in rows))
    with drawing():
        figure = sheet(2.6 + 0.85 * columns, 0.5 + 1.0 * len(rows))
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for row, places in zip(rows, grid, strict=True):
            places[0].text(-0.1, 0.5, short(row.title), ha="right", va="center", transform=places[0].transAxes)
            for column, axes in enumerate(places):
                axes.set_axis_off()
                if column >= len(row.images):
                    continue
                image = np.clip((row.images[column].transpose(1, 2, 0) + 1) / 2, 0, 1)
                axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                if row.scores:
                    axes.set_title(f"{row.scores[column]:.2f}", fontsize=8, pad=2)
        entitle(grid[0, 0], "Images found in one gradient step, and their SSIM", provenance)
        alt = "; ".join(_told(row) for row in rows)
        return finish(INVERSION, alt, figure, png=True)


def _told(row: Row) -> str:
    return f"{row.title}: mean SSIM {np.mean(row.scores):.2f}" if row.scores else row.title
