"""Figures: numbers in, a matplotlib figure out."""

from keras_dskd.structure.figures.correlation import plot_correlation
from keras_dskd.structure.figures.history import plot_history
from keras_dskd.structure.figures.panels import draw_sphere
from keras_dskd.structure.figures.sphere import sphere_directions, sphere_points
from keras_dskd.structure.figures.structure import plot_structure
from keras_dskd.structure.figures.style import saved

__all__ = [
    "draw_sphere",
    "plot_correlation",
    "plot_history",
    "plot_structure",
    "saved",
    "sphere_directions",
    "sphere_points",
]
