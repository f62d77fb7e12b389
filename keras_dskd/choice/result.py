"""What a choice between candidates found."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd.choice.candidates import Candidate
from keras_dskd.distiller.distiller import Distiller
from keras_dskd.internal.tables import as_text, table, terminal_width

#: Of the normal distribution, for intervals of 95 %.
_QUANTILE = 1.96


@dataclass(frozen=True)
class Choice:
    """What `choose` found.

    Attributes:
        name: Name of the candidate with the highest mean score.
        candidate: Makes another distiller of its kind: `candidate(teacher, student)`.
        distiller: The distiller of its kind that was trained with the first seed.
        scores: Maps the name of each candidate to its scores, an array of shape
            `(seeds, rows)`. Gains are differences from the first candidate.
    """

    name: str
    candidate: Candidate
    distiller: Distiller
    scores: dict[str, NDArray[Any]] = field(repr=False)

    @property
    def student(self) -> keras.Model:
        """The chosen student, trained with the first seed."""
        return self.distiller.student

    def gain(self, name: str | None = None) -> tuple[float, float, float]:
        """The mean score of a candidate minus that of the first one.

        The 95 % interval takes the mean as normally distributed and the rows as
        independent. With one seed it says nothing about other initial weights. With
        several, it includes how much the gain varies between them. The chosen candidate
        is the best of several, so expect a little less on new rows.

        Args:
            name: Name of the candidate. Defaults to the chosen one.

        Returns:
            The mean difference, and both ends of its interval.
        """
        first = next(iter(self.scores.values()))
        differences = self.scores[self.name if name is None else name] - first
        seeds, rows = differences.shape
        variance = differences.mean(0).var(ddof=1) / rows if rows > 1 else np.inf
        if seeds > 1:
            variance += differences.mean(1).var(ddof=1) / seeds
        mean, half = differences.mean(), _QUANTILE * np.sqrt(variance)
        return float(mean), float(mean - half), float(mean + half)

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Print a table with the mean score and the gain of each candidate.

        Args:
            print_fn: Function to call with the table's text.
        """
        seeds, rows = self.scores[self.name].shape
        first = next(iter(self.scores))
        header = ["candidate", "score", f"- {first}", "95 % interval", ""]
        lines = []
        for name, scores in self.scores.items():
            mean, low, high = self.gain(name)
            gain = [f"{mean:+.4f}", f"[{low:+.4f}, {high:+.4f}]"]
            if name == first:
                gain = ["", ""]
            chosen = "chosen" if name == self.name else ""
            lines.append([name, f"{scores.mean():.4f}", *gain, chosen])
        width = terminal_width() if print_fn is print else None
        text = as_text(table(header, lines, header[1:4], framed=False), width)
        print_fn(
            f"{text}\n{rows} validation rows, {seeds} seed{'s' if seeds > 1 else ''}"
        )
