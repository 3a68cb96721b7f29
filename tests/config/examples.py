"""What an example configuration must be: complete, loadable, true about defaults and ranges, and strict.

`problems(path, cls)` is for every file in configs/ that a program reads.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from coordd.config import UNSET, Row, build, describe
from coordd.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"

_HEADER = re.compile(r"#?\[+([\w.]+)\]+")
_KEY = re.compile(r"#?(\w+) = (.*)")


class Line(NamedTuple):
    """One key of an example file, with the comment above it. `active`: it is not commented out."""

    key: str
    value: Any
    active: bool
    comment: str


def lines(path: Path) -> Iterator[Line]:
    table, comment = "", ""
    for text in path.read_text(encoding="utf-8").splitlines():
        if header := _HEADER.fullmatch(text):
            table = header[1]
            yield Line(table, None, not text.startswith("#"), comment)
        elif key := _KEY.fullmatch(text):
            value = tomllib.loads(f"x = {key[2]}")["x"]
            yield Line(f"{table}.{key[1]}" if table else key[1], value, not text.startswith("#"), comment)
        elif text.startswith("#"):
            comment += text[1:]
            continue
        comment = ""


def facts(row: Row) -> list[str]:
    """What the comment above a setting must say."""
    described = row.setting
    numbers = [described.least, described.most]
    if isinstance(described.default, int) and not isinstance(described.default, bool):
        numbers.append(described.default)
    words = [f"{number:_}" for number in numbers if number is not None]
    words += [described.unit, *described.choices]
    words += ["Required"] if described.default is UNSET else ["efault"]
    return [word for word in words if word]


def check_complete(path: Path, cls: type) -> None:
    """Every setting stands in the file, none besides; commented ones show their default; comments tell facts."""
    shown = {line.key: line for line in lines(path)}
    rows = {row.key.replace("[]", ""): row for row in describe(cls)}
    assert shown.keys() == rows.keys()
    for key, row in rows.items():
        line = shown[key]
        missing = [fact for fact in facts(row) if fact not in line.comment] if line.value is not None else []
        assert not missing, f"the comment above {key} lacks {missing}"
        default = row.setting.default
        if not line.active and isinstance(default, str | int | float):
            assert line.value == default, f"{key} is shown with a default that it does not have"


def tables(cls: type) -> list[str]:
    """Dotted names of all tables in `cls`, "" for the file itself."""
    return ["", *dict.fromkeys(row.key.rpartition(".")[0] for row in describe(cls) if "." in row.key)]


def check_strict(values: dict[str, Any], cls: type, table: str) -> None:
    """An unknown key in `table` of otherwise good values is refused by file, key and nearest known key."""
    inner: Any = values
    path = ""
    for part in filter(None, table.split(".")):
        name = part.removesuffix("[]")
        inner = inner.setdefault(name, [{}] if part.endswith("[]") else {})
        path += name
        if part.endswith("[]"):
            inner, path = inner[0], path + "[0]"
        path += "."
    known = next(row.key for row in describe(cls) if row.key.rpartition(".")[0] == table)
    nearest = known.rpartition(".")[2]
    inner[nearest + "x"] = 1
    with pytest.raises(ConfigError) as caught:
        build(cls, values, "example.toml")
    text = str(caught.value)
    assert text.startswith(f"example.toml: {path}{nearest}x is not a known setting; the nearest is ")
    assert text.endswith(nearest)
