"""Animate features on the unit sphere while students learn, as a GIF.

Two students start from the same weights and see the same degraded digits in the same
order (see digits.py). One student learns only from labels, the other also from a
teacher. Each frame shows the features of held-out digits at one step of the training,
with one color and one number per class. All frames are seen from the directions chosen
for the last frame, and the right sphere is turned so that its classes lie as on the
left sphere. Only the part of the sphere that features reach is drawn. The first frame
repeats the last one, for viewers that do not play the animation.

    python examples/sphere_animation.py --epochs 20 --out out/sphere.gif
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import compare
import keras
import numpy as np
from digits import load
from matplotlib.animation import PillowWriter
from matplotlib.figure import Figure
from models import cnn
from training import train

import keras_dskd
from keras_dskd.structure.figures import draw_sphere, sphere_directions, sphere_points

BATCH_SIZE = 50
FRAMES_A_SECOND = 8


@dataclass(frozen=True)
class Moment:
    """Held-out features at one step of a training."""

    epoch: float
    rows: np.ndarray
    accuracy: float
    uniformity: float


class Moments(keras.callbacks.Callback):
    """Records the features of a layer at steps evenly spaced over the training.

    Args:
        layer: Name of a layer of the student; its maps are pooled over positions.
        x: Held-out input.
        y: Its labels.
        epochs: Number of epochs.
        steps_per_epoch: Batches per epoch.
        count: Approximate number of moments: the first before training, the last after.
    """

    def __init__(self, layer, x, y, *, epochs, steps_per_epoch, count):
        super().__init__()
        self.layer, self.x, self.y = layer, x, y
        self.steps_per_epoch = steps_per_epoch
        self.due = set(np.linspace(0, epochs * steps_per_epoch, count).astype(int))
        self.moments, self.step = [], 0

    def on_train_begin(self, logs=None):
        self.note()

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.step in self.due:
            self.note()

    def note(self):
        """Records the current features."""
        student = getattr(self.model, "student", self.model)
        read = keras.Model(
            student.input, [student.get_layer(self.layer).output, student.output]
        )
        rows, logits = map(keras.ops.convert_to_numpy, read(self.x, training=False))
        rows = rows.mean(axis=tuple(range(1, rows.ndim - 1)))  # (n, c)
        self.moments.append(
            Moment(
                epoch=self.step / self.steps_per_epoch,
                rows=rows,
                accuracy=float(np.mean(logits.argmax(axis=-1) == self.y)),
                uniformity=float(keras_dskd.ops.spatial_uniformity(rows)),
            )
        )


def animate(trainings, labels, title, path):
    """Writes the GIF.

    Args:
        trainings: Dict that maps two names to `Moment`s at the same steps.
        labels: `(n,)` class of each row of features; only these n rows are drawn.
        title: Title, shown before the epoch.
        path: File to write.
    """
    count = len(labels)
    last = {name: moments[-1].rows[:count] for name, moments in trainings.items()}
    left, right = map(sphere_directions, last.values())
    right = alike(left, right, *last.values(), labels)
    directions = dict(zip(last, (left, right), strict=True))
    points = {
        name: [sphere_points(m.rows[:count], directions[name]) for m in moments]
        for name, moments in trainings.items()
    }
    farthest = min(
        at[:, 0].min() for moments in points.values() for at, _ in moments
    )  # Cosine of the angle to the direction of view.
    degrees = min(15 * int(np.ceil(np.degrees(np.arccos(farthest)) / 15)), 90)
    circles = " and ".join(map(str, [*range(30, degrees, 30), degrees]))
    figure = Figure(figsize=(8, 4.9))
    figure.subplots_adjust(0.01, 0.13, 0.99, 0.86, wspace=0.02)
    figure.text(
        0.5,
        0.02,
        f"Circles: {circles} degrees from the last mean direction.   "
        "Uniformity: lower is more even.",
        fontsize=10,
        ha="center",
    )
    panels = dict(zip(last, figure.subplots(1, 2), strict=True))
    frames = len(next(iter(trainings.values())))
    writer = PillowWriter(fps=FRAMES_A_SECOND)
    with writer.saving(figure, path, dpi=100):
        # The last frame is shown for two seconds before the animation starts again.
        for frame in [-1, *range(frames), *[-1] * 2 * FRAMES_A_SECOND]:
            for name, axes in panels.items():
                moment = trainings[name][frame]
                axes.clear()
                at, is_kept = points[name][frame]
                draw_sphere(axes, at, labels[is_kept], size=14, degrees=degrees)
                axes.set_title(name, fontsize=13)
                axes.set_xlabel(
                    f"accuracy {moment.accuracy:.0%}, "
                    f"uniformity {moment.uniformity:.2f}",
                    fontsize=12,
                )
            figure.suptitle(f"{title}, epoch {moment.epoch:4.1f}", fontsize=13)
            writer.grab_frame()


def alike(left, right, left_rows, right_rows, labels):
    """Turns the right view about its axis, so that classes lie as on the left."""
    means = []
    for rows, directions in ((left_rows, left), (right_rows, right)):
        points, is_kept = sphere_points(rows, directions)
        kept = labels[is_kept]
        means.append([points[kept == c, 1:].mean(axis=0) for c in np.unique(kept)])
    # Orthogonal Procrustes: the rotation or reflection of least squared distance.
    u, _, v = np.linalg.svd(np.transpose(means[0]) @ np.array(means[1]))
    return np.concatenate([right[:1], u @ v @ right[1:]])


def main():
    """Trains a teacher and two students, and writes the animation."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--frames", type=int, default=36, help="at most")
    parser.add_argument("--layer", default="block2", help="layer of the student")
    parser.add_argument("--method", default="dskd", choices=["dskd", "recommended"])
    parser.add_argument("--points", type=int, default=300, help="drawn, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/sphere.gif"))
    arguments = parser.parse_args()
    data = load()
    shape, widths = data.strong_train.shape[1:], (16, 32, 64)
    keras.utils.set_random_seed(arguments.seed)
    options = {"seed": arguments.seed, "epochs": arguments.epochs}
    options["batch_size"] = BATCH_SIZE
    teacher = cnn(shape, data.classes, widths, "teacher")
    train(teacher, data.strong_train, data.y_train, **options)
    initial = cnn(shape, data.classes, widths, "student").get_weights()
    steps_per_epoch = len(data.y_train) // BATCH_SIZE
    trainings = {}
    for name, make in {
        "student alone": compare.alone,
        f"+ {arguments.method}": getattr(compare, arguments.method),
    }.items():
        student = cnn(shape, data.classes, widths, "student")
        student.set_weights(initial)
        model = make(teacher, student, arguments.epochs * steps_per_epoch)
        x = data.weak_train
        if model is not student:
            x = {"teacher": data.strong_train, "student": data.weak_train}
        moments = Moments(
            arguments.layer,
            data.weak_test,
            data.y_test,
            epochs=arguments.epochs,
            steps_per_epoch=steps_per_epoch,
            count=arguments.frames,
        )
        train(model, x, data.y_train, callbacks=[moments], **options)
        trainings[name] = moments.moments
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    title = f"Held-out features of layer {arguments.layer} on the unit sphere"
    animate(trainings, data.y_test[: arguments.points], title, arguments.out)
    print(f"Wrote {arguments.out}, {arguments.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
