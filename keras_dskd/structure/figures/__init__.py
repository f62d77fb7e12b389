"""Figures of structure and of training, with matplotlib.

```
structure.py     plot_structure: reports side by side
correlation.py   plot_correlation: channel correlations before and after
history.py       plot_history: what `fit` logged
panels.py        the panels of the first two: matrix, sphere, eigenvalues
sphere.py        project features to a sphere that can be drawn
reports.py       match the layers of several reports
style.py         colors, curve styles, saving
```
"""

from keras_dskd.structure.figures.correlation import plot_correlation
from keras_dskd.structure.figures.history import plot_history
from keras_dskd.structure.figures.panels import draw_sphere
from keras_dskd.structure.figures.sphere import sphere_directions, sphere_points
from keras_dskd.structure.figures.structure import plot_structure
from keras_dskd.structure.figures.style import save_figure

__all__ = [
    "draw_sphere",
    "plot_correlation",
    "plot_history",
    "plot_structure",
    "save_figure",
    "sphere_directions",
    "sphere_points",
]
