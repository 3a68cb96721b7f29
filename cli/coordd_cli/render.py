"""Results on the screen: a table for people, JSON for programs. rich is loaded only when a table is drawn.

What comes from the cluster is data of strangers: control characters in it are shown escaped, so that a check's output
can't move the cursor or rename the terminal's window.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["Renderer", "as_object", "shortened", "visible"]

Row = Mapping[str, Any]

CELL_CHARACTERS = 120


def as_object(value: Any) -> Any:
    """A message as nested dicts and lists with field names, for JSON; bytes as text where they are UTF-8."""
    if isinstance(value, msgspec.Struct):
        return {field: as_object(getattr(value, field)) for field in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {key: as_object(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [as_object(one) for one in value]
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return str(value) if isinstance(value, Path) else value


def visible(value: Any) -> str:
    """One line of printable characters."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bytes):
        value = value.decode(errors="backslashreplace")
    if isinstance(value, Mapping):
        value = " ".join(f"{key}={one}" for key, one in value.items())
    elif isinstance(value, list | tuple):
        value = " ".join(map(str, value))
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(value: Any) -> str:
    """The beginning of a long text, for a cell of a table."""
    # The slice first: a value may have half a megabyte.
    text = visible(value[: CELL_CHARACTERS + 1])
    return text if len(text) <= CELL_CHARACTERS else text[: CELL_CHARACTERS - 1] + "…"


class Renderer:
    """Prints results in the format chosen, to stdout; words for people beside them go to stderr."""

    def __init__(self, output: str) -> None:
        self.json = output == "json"

    def rows(self, rows: Iterable[Row], columns: Sequence[str]) -> None:
        """JSON: every row with all its fields. Table: the named columns, under a head."""
        rows = list(rows)
        if self.json:
            self._print_json(rows)
        else:
            self._print_table([column.upper() for column in columns], [[row[name] for name in columns] for row in rows])

    def one(self, row: Row) -> None:
        """One thing with all its fields."""
        if self.json:
            self._print_json(row)
        else:
            self._print_table(None, [[key, value] for key, value in row.items()])

    def done(self, sentence: str, **facts: Any) -> None:
        """What a command has done: the sentence for people, the facts for programs."""
        if self.json:
            self._print_json(facts)
        else:
            print(visible(sentence))

    def note(self, sentence: str) -> None:
        print(visible(sentence), file=sys.stderr)

    def error(self, sentence: str, code: str, status: int) -> None:
        """The last word of a failed command."""
        if self.json:
            document = {"error": code, "text": sentence, "exit": status}
            print(msgspec.json.encode(document).decode(), file=sys.stderr)
        else:
            self.note(f"coordctl: {sentence}")

    def _print_json(self, value: Any) -> None:
        print(msgspec.json.format(msgspec.json.encode(as_object(value)), indent=2).decode())

    def _print_table(self, head: Sequence[str] | None, rows: Sequence[Sequence[Any]]) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*(head or ()), box=None, show_header=head is not None, pad_edge=False, padding=(0, 2, 0, 0))
        for row in rows:
            table.add_row(*(Text(visible(cell), overflow="fold") for cell in row))
        # Nothing is folded or cut for a program that reads the table through a pipe.
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 100_000)
        with console.capture() as captured:
            console.print(table)
        print("\n".join(line.rstrip() for line in captured.get().splitlines()))
