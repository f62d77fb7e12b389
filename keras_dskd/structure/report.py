"""A structure report: its numbers, and the table, figures and page that show them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from keras_dskd.internal.tables import terminal_width
from keras_dskd.internal.types import FilePath
from keras_dskd.structure.table import structure_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class FeatureStructure:
    """The structure of one layer's features over a data set.

    Attributes:
        rows: `(n, c)`: one row per sample, the mean over positions.
        correlation: `(c, c)`: the Pearson correlation between channels; 0 for a dead
            channel.
        eigenvalues: `(c,)`: the eigenvalues of `correlation`, largest first.
        mean_correlation: Mean of |correlation| over pairs of different channels.
        uniformity: `keras_dskd.ops.spatial_uniformity` at temperature 2. Lower values
            are more uniform.
        effective_rank: Effective rank (RankMe) of the rows, between 1 and min(n, c).
        dead_channels: Number of channels that do not vary over the data.
    """

    rows: NDArray[Any]
    correlation: NDArray[Any]
    eigenvalues: NDArray[Any]
    mean_correlation: float
    uniformity: float
    effective_rank: float
    dead_channels: int

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.rows.shape[1]

    def __repr__(self) -> str:
        return (
            f"<FeatureStructure of {len(self.rows)} samples, {self.channels} channels: "
            f"mean_correlation={self.mean_correlation:.3f}, "
            f"uniformity={self.uniformity:.3f}, "
            f"effective_rank={self.effective_rank:.1f}, "
            f"dead_channels={self.dead_channels}>"
        )


@dataclass(frozen=True, repr=False)
class StructureReport:
    """The structure of a model's features. `structure_report` returns it.

    Attributes:
        name: Name of the report in tables and figures.
        layers: Dict that maps each layer's name to its `FeatureStructure`.
        accuracy: Share of all samples that are classified correctly. `None` without
            labels.
        labels: `(n,)`: the class of each sample that the structure was measured on.
            `None` without labels, and with labels at each position.
        samples: Number of samples in the data. The structure may be measured on fewer.
    """

    name: str
    layers: dict[str, FeatureStructure]
    accuracy: float | None
    labels: NDArray[Any] | None
    samples: int

    def __repr__(self) -> str:
        return structure_table([self])

    def summary(
        self, *others: "StructureReport", print_fn: Callable[[str], Any] = print
    ) -> None:
        """Print a table with one line per layer.

        On a terminal, `print` wraps cells to fit the terminal's width. A file or
        another `print_fn` receives lines of any length.

        Args:
            *others: Further reports, listed below this one.
            print_fn: Function to call with the table's text.
        """
        width = terminal_width() if print_fn is print else None
        print_fn(structure_table([self, *others], width))

    def plot(
        self, *others: "StructureReport", path: FilePath | None = None
    ) -> "Figure":
        """Draw this report, and any others beside it, with matplotlib.

        Args:
            *others: Further reports with the same number of layers.
            path: File to save the figure to.

        Returns:
            A `matplotlib.figure.Figure`.
        """
        from keras_dskd.structure import figures

        return figures.save_figure(figures.plot_structure([self, *others]), path)

    def plot_correlation(
        self, after: "StructureReport", path: FilePath | None = None
    ) -> "Figure":
        """Compare the correlations between channels before (this report) and after.

        The figure has one row of panels per layer: both matrices of |correlation|, and
        the distributions of their off-diagonal values with the difference of the means.

        Args:
            after: Another report with the same number of layers.
            path: File to save the figure to.

        Returns:
            A `matplotlib.figure.Figure`.
        """
        from keras_dskd.structure import figures

        return figures.save_figure(figures.plot_correlation(self, after), path)

    def to_html(
        self, path: FilePath, *others: "StructureReport", title: str | None = None
    ) -> None:
        """Write this report, and any others beside it, to one HTML file.

        The page has a table of the numbers, explains each of them, and shows the
        figures. It is self-contained: it runs no scripts and loads no other files.

        Args:
            path: File to write.
            *others: Further reports with the same number of layers.
            title: Title of the page. Defaults to the reports' names.
        """
        from keras_dskd.structure.html import html_report

        Path(path).write_text(html_report([self, *others], title), encoding="utf-8")

    def to_dict(self) -> dict[str, Any]:
        """Return the table's numbers as a dict of plain Python values."""
        return {
            "name": self.name,
            "accuracy": self.accuracy,
            "layers": {
                layer: {
                    "channels": feature.channels,
                    "mean_correlation": feature.mean_correlation,
                    "uniformity": feature.uniformity,
                    "effective_rank": feature.effective_rank,
                    "dead_channels": feature.dead_channels,
                }
                for layer, feature in self.layers.items()
            },
        }
