"""Where in the log a state file stands, read without opening it as the state: for snapshots, which nobody writes."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec

from coordd.errors import DamagedError
from coordd.messages.entry import UNREADABLE
from coordd.state.levels import require_format, require_supported
from coordd.types import Configuration, Index, Term

__all__ = ["Position", "read_position"]


class Position(NamedTuple):
    """What the file says about itself."""

    applied: Index
    term: Term
    configuration: Configuration
    configuration_index: Index


def read_position(path: Path) -> Position:
    """Of a finished file that nobody writes. Raises: DamagedError if it holds no position in a configured cluster,
    UnsupportedError if it is of a form or a feature level that this version does not know."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version:  # else it is no state at all
                require_format(str(path), version)
            row = connection.execute(
                "SELECT applied, applied_term, configuration, configuration_index, feature_level"
                " FROM meta WHERE name = 'machine'"
            ).fetchone()
        if row is None:
            raise DamagedError(f"{path} is damaged: it does not say up to where it was applied")
        require_supported(str(path), row[4])
        return Position(row[0], row[1], msgspec.json.decode(row[2], type=Configuration), row[3])
    except (sqlite3.Error, *UNREADABLE) as error:
        raise DamagedError(f"{path} can't be read as replicated state: {error}") from error
