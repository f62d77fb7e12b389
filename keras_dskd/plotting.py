"""Figures of dimensional structure: NumPy in, a matplotlib figure out."""

import numpy as np

#: Okabe and Ito's colours and two more, told apart by colour-blind readers.
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#F0E442",
    "#999999",
    "#882255",
)


def plot_structure(reports, title=None):
    """Draws reports side by side: correlations, the sphere, and eigenvalues.

    Two rows of panels a layer. For each report a matrix of |correlation| between
    channels, and below it the features on the unit sphere, coloured by class where
    labels are known; at the right the eigenvalues of all the correlation matrices.

    Args:
        reports: `StructureReport`s with the same number of layers.
        title: Title of the figure.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there are no reports, or their numbers of layers differ.
    """
    figure_class = _matplotlib_figure()
    counts = {len(report.layers) for report in reports}
    if len(counts) != 1:
        raise ValueError(
            "Reports drawn side by side must have the same number of layers. "
            f"Received: {[(r.name, len(r.layers)) for r in reports]}"
        )
    layers, columns = counts.pop(), len(reports)
    # Two panels a report, and one for all eigenvalues.
    figure = figure_class(
        figsize=(2.6 * columns + 4.2, 5.6 * layers + 0.5), layout="constrained"
    )
    grid = figure.add_gridspec(
        2 * layers, columns + 1, width_ratios=[1] * columns + [1.35]
    )
    for row in range(layers):
        pairs = [list(report.layers.items())[row] for report in reports]
        matrices = [
            figure.add_subplot(grid[2 * row, column]) for column in range(columns)
        ]
        for axes, report, (layer, feature) in zip(
            matrices, reports, pairs, strict=True
        ):
            image = _draw_correlation(axes, feature)
            axes.set_title(f"{report.name}\n{_short(layer)}", fontsize=10)
        matrices[0].set_ylabel("channel")
        bar = figure.colorbar(image, ax=matrices, fraction=0.03, pad=0.02)
        bar.set_label("|correlation| between channels", fontsize=8)
        for column, (report, (_, feature)) in enumerate(
            zip(reports, pairs, strict=True)
        ):
            axes = figure.add_subplot(grid[2 * row + 1, column])
            _draw_sphere(axes, feature, report.labels)
        spectrum = figure.add_subplot(grid[2 * row : 2 * row + 2, columns])
        _draw_eigenvalues(spectrum, reports, pairs)
    if title:
        figure.suptitle(title)
    return figure


def _draw_correlation(axes, feature):
    image = axes.imshow(
        np.abs(feature.correlation), cmap="cividis", vmin=0, vmax=1, aspect="equal"
    )
    axes.set_xlabel(
        f"channel\nmean off the diagonal {feature.mean_correlation:.2f}", fontsize=9
    )
    axes.tick_params(labelsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    return image


def _draw_sphere(axes, feature, labels):
    """The features on the sphere, seen along the direction they share most."""
    points, is_kept = sphere_points(feature.rows)
    colours = COLOURS[0]
    if labels is not None:
        colours = [COLOURS[label % len(COLOURS)] for label in labels[is_kept]]
    circle = np.linspace(0, 2 * np.pi, 200)
    axes.plot(np.cos(circle), np.sin(circle), color="grey", linewidth=1)
    axes.scatter(points[:, 1], points[:, 2], s=4, c=colours, alpha=0.6, linewidths=0)
    axes.set_aspect("equal")
    axes.set_xlim(-1.05, 1.05)
    axes.set_ylim(-1.05, 1.05)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    what = "features on the unit sphere" + ("" if labels is None else ", by class")
    axes.set_xlabel(
        f"{what}\nuniformity {feature.uniformity:.2f} (lower: more even)",
        fontsize=9,
    )


def _draw_eigenvalues(axes, reports, pairs):
    for index, (report, (_, feature)) in enumerate(zip(reports, pairs, strict=True)):
        values = np.maximum(feature.eigenvalues, 1e-4)
        axes.semilogy(
            np.arange(1, len(values) + 1),
            values,
            color=COLOURS[index % len(COLOURS)],
            marker="o",
            markersize=3,
            label=f"{report.name}, effective rank {feature.effective_rank:.1f}",
        )
    axes.axhline(
        1, color="grey", linestyle="--", linewidth=1, label="independent channels"
    )
    # Curves fall to the right: below them is room for the legend.
    axes.set_ylim(bottom=axes.get_ylim()[0] / 8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("number of the eigenvalue, largest first")
    axes.set_ylabel("eigenvalue of the correlation matrix (cut at 0.0001)")
    axes.set_title("Spread over dimensions", fontsize=10)
    axes.legend(fontsize=8, loc="lower left")
    axes.grid(alpha=0.3)


def sphere_points(rows):
    """Unit rows in the space of their three strongest directions, on its sphere.

    The directions are not centred, as `spatial_uniformity` is not: the first is
    about the mean direction of the features. Rows of zeros are left out.

    Args:
        rows: `(n, c)`.

    Returns:
        `(m, 3)` points of unit length, and `(n,)` which rows they are.
    """
    rows = np.asarray(rows, "float64")
    lengths = np.linalg.norm(rows, axis=1)
    is_kept = lengths > 0
    unit = rows[is_kept] / lengths[is_kept, None]
    points = np.zeros((len(unit), 3))
    if len(unit):
        _, _, directions = np.linalg.svd(unit, full_matrices=False)
        strongest = directions[:3]
        # A direction's sign is arbitrary: most features point to the viewer.
        strongest = (
            strongest * np.where((unit @ strongest.T).mean(0) < 0, -1, 1)[:, None]
        )
        points[:, : len(strongest)] = unit @ strongest.T
    # Rows orthogonal to all three directions stay at the origin.
    return points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12), (
        is_kept
    )


def _short(layer, length=24):
    return layer if len(layer) <= length else "…" + layer[-length + 1 :]


def _matplotlib_figure():
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Figures need matplotlib. Install it with: pip install keras-dskd[plot]"
        ) from error
    return Figure
