"""Tables of text, laid out by `rich` as Keras's own summaries are."""

import io
from collections.abc import Collection, Iterable, Sequence

import rich.box
import rich.console
import rich.table
import rich.text

#: No frame; columns separated by spaces; a line of dashes below the header.
_RULE_BELOW_HEADER = rich.box.Box(
    "    \n    \n ---\n    \n    \n    \n    \n    \n", ascii=True
)


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    right_aligned: Collection[str] = (),
    framed: bool = True,
) -> rich.table.Table:
    """A table whose cells wrap where the line is too short for them.

    Args:
        header: Names of the columns.
        rows: The cells of each row, as plain text.
        right_aligned: Names of the columns to align at the right.
        framed: Whether every cell has a frame, as in `keras.Model.summary`. Otherwise
            the table has one line per row, and a line of dashes below the header.
    """
    result = rich.table.Table(show_lines=True)
    if not framed:
        result = rich.table.Table(
            box=_RULE_BELOW_HEADER,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
    for name in header:
        result.add_column(
            rich.text.Text(name),
            justify="right" if name in right_aligned else "left",
            overflow="fold",
        )
    for row in rows:
        result.add_row(*map(rich.text.Text, row))
    return result


def as_text(table: rich.table.Table, width: int | None = None) -> str:
    """The table as plain text, without trailing spaces.

    Args:
        table: What `table` returned.
        width: Length of the longest line. With `None`, no cell is wrapped.
    """
    console = rich.console.Console(
        file=io.StringIO(),
        force_terminal=False,
        force_jupyter=False,
        color_system=None,
        width=10**6,
    )
    console.width = width or console.measure(table).maximum
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def terminal_width() -> int | None:
    """Length of a line of the terminal. `None` if output goes elsewhere."""
    console = rich.console.Console()
    return console.width if console.is_terminal else None
