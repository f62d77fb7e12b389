"""The settings that all runs of a table of `methods.py` share."""

from dataclasses import asdict, dataclass

from data_sets import VALIDATION_SHARE

#: Default number of steps of a training, rounded to whole epochs.
STEPS = 600

#: Widths of the blocks, for images or sequences (`True`) and for tables.
WIDTHS = {
    "teacher": {True: (32, 64, 128, 128), False: (64, 64, 64)},
    "student": {True: (16, 32, 64, 64), False: (16, 16, 16)},
}


@dataclass(frozen=True)
class Settings:
    """Settings. Some stay open until the data are known.

    Attributes:
        split: Scored on `"validation"` or `"test"` rows; see `data_sets.split`.
        limit: Maximum number of training rows, or `None` for all.
        epochs: Epochs of every student's training. `None`: about `STEPS` steps.
        teacher_epochs: Epochs of the teacher's training. `None`: about `STEPS` steps.
        batch_size: Samples per batch.
        learning_rate: Highest learning rate.
        teacher_widths: Widths of the teacher's blocks, or `None` for `WIDTHS`.
        student_widths: Widths of the student's blocks, or `None` for `WIDTHS`.
        mix: `alpha` of `keras_dskd.MixedPairs`, or 0 not to mix. The teacher is trained
            on unmixed rows.
        network: For images, teacher and student: `"cnn"` or `"resnet"` of `models.py`.
        labeled: Number or share of the rows with labels, or `None` for all rows.
        labeled_scenes: Number of scenes, or persons, with labels instead.
        teacher_rows: Rows that the teacher is trained on: `"all"`, or `"labeled"`.
        pairs: Pairs, with and without labels, that methods train on, or `None` for all.
            The teacher is trained on `teacher_rows` all the same.
    """

    split: str = "validation"
    limit: int | None = None
    epochs: int | None = None
    teacher_epochs: int | None = None
    batch_size: int = 64
    learning_rate: float = 3e-3
    teacher_widths: tuple | None = None
    student_widths: tuple | None = None
    mix: float = 0.0
    network: str = "cnn"
    labeled: float | None = None
    labeled_scenes: int | None = None
    teacher_rows: str = "all"
    pairs: int | None = None

    def of(self, data_set):
        """The settings for a data set: a dict without open choices."""
        count = len(data_set.data.y_train)
        if self.split == "validation":
            # Not the exact number, because it differs between seeds if scenes differ.
            count = round((1 - VALIDATION_SHARE) * count)
        if self.limit and self.limit > count:
            raise SystemExit(
                f"--limit {self.limit}: {data_set.name} has {count} rows to train on."
            )
        count = self.limit or count
        if count < self.batch_size:
            raise SystemExit(
                f"{data_set.name}: {count} training rows are less than a batch of "
                f"{self.batch_size}. Give a smaller --batch-size."
            )
        chosen = asdict(self)
        if not data_set.is_images:
            chosen["network"] = "sequence_cnn" if data_set.axes else "mlp"
        of_steps = max(1, round(STEPS / (count // self.batch_size)))
        for name in ("epochs", "teacher_epochs"):
            chosen[name] = chosen[name] or of_steps
        for role, widths in WIDTHS.items():
            given = chosen[f"{role}_widths"] or widths[data_set.axes > 0]
            chosen[f"{role}_widths"] = list(given)
        lengths = {len(chosen[f"{role}_widths"]) for role in WIDTHS}
        if len(lengths) > 1 or min(lengths) < 3:
            raise SystemExit(
                f"{data_set.name}: teacher and student take equally many widths, three "
                f"or more. Received: {chosen['teacher_widths']} and "
                f"{chosen['student_widths']}"
            )
        return chosen
