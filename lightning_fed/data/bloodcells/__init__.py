"""Procedural images of blood cells, drawn from textbooks: the data set that needs no download."""

from lightning_fed.data.bloodcells.generator import draw
from lightning_fed.data.bloodcells.morphology import CELL_TYPES

__all__ = ["CELL_TYPES", "draw"]
