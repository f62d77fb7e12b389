"""Figures: numbers in, a matplotlib figure out."""

from keras_dskd.plotting.correlation import plot_correlation
from keras_dskd.plotting.history import plot_history
from keras_dskd.plotting.panels import draw_sphere
from keras_dskd.plotting.sphere import sphere_directions, sphere_points
from keras_dskd.plotting.structure import plot_structure
from keras_dskd.plotting.style import saved

__all__ = [
    "draw_sphere",
    "plot_correlation",
    "plot_history",
    "plot_structure",
    "saved",
    "sphere_directions",
    "sphere_points",
]
