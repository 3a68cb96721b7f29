"""Settings as data: a TOML file becomes a frozen object, or one sentence that says what is wrong with it.

A *table* of settings is a class under `@table`; each field is a `setting(...)` that carries its unit, default, allowed
values and help in one line, so that loading, errors, documentation and tests all read the same place. Fields may be
`str`, `int`, `float`, `bool`, `Path`, `tuple[str, ...]`, `dict[str, str]`, another table (`[raft]`), any of these
`| None`, or a `tuple` of tables (`[[servers]]`). `load(Settings, path)` reads a file; `build(Settings, values, source)`
takes values that came from elsewhere; `describe(Settings)` lists every setting.

Every error is a ConfigError that names the source (a file, an environment variable), the key with its tables, the value
and what is allowed. Unknown keys are refused in every table, and the nearest known one is named. A table may check how
its settings fit together in `conflicts()`. Relative paths are relative to the folder of the file that names them.

The settings themselves stand with their programs: `coordd.server.settings`, `coordd_agent.settings` and
`coordd_cli.settings`.
"""

import dataclasses
import difflib
import ipaddress
import os
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

from coordd.errors import ConfigError

__all__ = [
    "ADDRESS",
    "FQDN",
    "NAME",
    "PUBLIC_KEY",
    "UNSET",
    "Form",
    "Row",
    "Setting",
    "build",
    "describe",
    "from_text",
    "load",
    "read_toml",
    "setting",
    "split_address",
    "table",
]

MAX_FILE_BYTES = 1024 * 1024
UNSET: Any = dataclasses.MISSING
"""Default of a setting that must be given."""

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Form:
    """What a text must look like. `find_fault` gives a reason to refuse it, or None."""

    text: str
    """Completes "must be …"."""
    find_fault: Callable[[str], str | None]


def split_address(address: str) -> tuple[str, int]:
    """`127.0.0.1:8310` or `[::1]:8310` to host and port. Raises: ValueError."""
    host, colon, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError("has no port from 1 to 65535")
    if ipaddress.ip_address(bare).version == 6 and bare == host:
        raise ValueError("needs brackets around an IPv6 address")
    return bare, int(port)


def _address_fault(text: str) -> str | None:
    try:
        split_address(text)
    except ValueError as error:
        return str(error)
    return None


def _matches(pattern: str) -> Callable[[str], str | None]:
    compiled = re.compile(pattern)
    return lambda text: None if compiled.fullmatch(text) else "has another form"


_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

ADDRESS = Form("a numeric address and port such as 10.0.0.1:8310 or [fd00::1]:8310", _address_fault)
NAME = Form("1 to 63 letters, digits and hyphens, with no hyphen at either end", _matches(_LABEL))
FQDN = Form("a domain name such as coord or service.example", _matches(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*\.?"))
PUBLIC_KEY = Form(
    "a public key of 40 characters, as `coordctl keys generate` prints it",
    _matches(r"[0-9A-Za-z.:+=^!/*?&<>()\[\]{}@%$#-]{40}"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """All that is known of one setting besides its name and type."""

    help: str
    default: Any = UNSET
    unit: str = ""
    """Completes the number: ms, s, bytes, entries, …"""
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    form: Form | None = None
    secret: bool = False
    """The value appears in no error text."""

    @property
    def required(self) -> bool:
        return self.default is UNSET

    def allowed(self, kind: Any) -> str:
        """What the value may be, as the end of a sentence "must be …"."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.form is not None:
            return self.form.text
        words = _KIND_WORDS.get(_bare(kind), "a table")
        if self.least is not None and self.most is not None:
            words += f" from {self.least} to {self.most}"
        elif self.least is not None:
            words += f", at least {self.least}"
        return f"{words} ({self.unit})" if self.unit else words


_KIND_WORDS: dict[Any, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    tuple[str, ...]: "a list of texts",
    dict[str, str]: "a table of texts",
}


def setting(
    help: str,
    *,
    default: Any = UNSET,
    unit: str = "",
    least: float | None = None,
    most: float | None = None,
    choices: Iterable[str] = (),
    form: Form | None = None,
    secret: bool = False,
) -> Any:
    """One field of a table. Without `default` it must be given; a nested table's default is a table of defaults."""
    described = Setting(
        help=help, default=default, unit=unit, least=least, most=most, choices=tuple(choices), form=form, secret=secret
    )
    metadata = {"setting": described}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(setting,))
def table(cls: type[T]) -> type[T]:
    """Make a class of `setting` fields a frozen table of settings."""
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of `describe`: a setting under its dotted key; in a list of tables the key is `servers[].name`."""

    key: str
    kind: Any
    setting: Setting


def describe(cls: type) -> tuple[Row, ...]:
    """Every setting of `cls` and of the tables in it, in the order of the source."""
    return tuple(_rows(cls, ""))


def _rows(cls: type, prefix: str) -> Iterator[Row]:
    for name, (kind, described) in _fields(cls).items():
        inner, many = _table_type(kind)
        yield Row(prefix + name, kind, described)
        if inner is not None:
            yield from _rows(inner, f"{prefix}{name}[]." if many else f"{prefix}{name}.")


def _fields(cls: type) -> dict[str, tuple[Any, Setting]]:
    kinds = typing.get_type_hints(cls)
    return {field.name: (kinds[field.name], field.metadata["setting"]) for field in dataclasses.fields(cls)}


def _table_type(kind: Any) -> tuple[type | None, bool]:
    """(the table's class, whether it is a list of them) for nested tables, (None, False) for a value."""
    bare: Any = _bare(kind)
    many = typing.get_origin(bare) is tuple
    inner: Any = typing.get_args(bare)[0] if many else bare
    if isinstance(inner, type) and dataclasses.is_dataclass(inner):
        return inner, many
    return None, False


def _bare(kind: Any) -> Any:
    """`X` of `X | None`; None is what such a setting is when it is not given."""
    return typing.get_args(kind)[0] if isinstance(kind, types.UnionType) else kind


# --- loading ----------------------------------------------------------------------------------------------------------


def load(cls: type[T], path: Path) -> T:
    """Read `path` into a `cls`. Raises: ConfigError."""
    return build(cls, read_toml(path), str(path), path.parent)


def read_toml(path: Path) -> dict[str, Any]:
    """The values in a TOML file. Raises: ConfigError if it can't be opened or is no TOML."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {os.strerror(error.errno or 0).lower()}") from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: is larger than {MAX_FILE_BYTES} bytes, which no configuration file should be")
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from error


def build(cls: type[T], values: Mapping[str, Any], source: str, folder: Path | None = None) -> T:
    """Make a `cls` of values as TOML gives them. `source` is named in errors; `folder` is where relative paths begin.

    Raises: ConfigError.
    """
    return _Builder(cls, source, folder or Path()).table(cls, values, "")


def from_text(kind: Any, text: str) -> Any:
    """A value of the type `kind` from the text of an environment variable or an option; the text itself if it is none.

    `build` then judges it, so that the error is the same wherever a value comes from.
    """
    kind = _bare(kind)
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text
    if kind == tuple[str, ...]:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


class _Builder:
    """One walk over the values, beside the tables that describe them."""

    def __init__(self, root: type, source: str, folder: Path) -> None:
        self._root = root
        self._source = source
        self._folder = folder

    def table(self, cls: type[T], values: Any, prefix: str) -> T:
        fields = _fields(cls)
        if not isinstance(values, Mapping):
            raise self._error(prefix.rstrip("."), f"= {values!r}: must be a table")
        for key in values:
            if key not in fields:
                raise self._unknown(prefix, key, fields)
        given = {}
        for name, (kind, described) in fields.items():
            if name in values:
                given[name] = self._value(kind, described, values[name], prefix + name)
            elif described.required:
                raise self._error(prefix + name, f"is missing: {described.help}; must be {described.allowed(kind)}")
        built = cls(**given)
        conflicts: Callable[[], Iterable[tuple[str, str]]] = getattr(built, "conflicts", tuple)
        for key, sentence in conflicts():
            raise self._error(prefix + key, sentence)
        return built

    def _value(self, kind: Any, described: Setting, value: Any, key: str) -> Any:
        inner, many = _table_type(kind)
        if inner is None:
            return self._plain(kind, described, value, key)
        if not many:
            return self.table(inner, value, key + ".")
        if not isinstance(value, list):
            raise self._error(key, f"= {value!r}: must be a list of tables, written [[{key}]]")
        return tuple(self.table(inner, one, f"{key}[{number}].") for number, one in enumerate(value))

    def _plain(self, kind: Any, described: Setting, value: Any, key: str) -> Any:
        converted = _convert(_bare(kind), value)
        fault = None
        if converted is UNSET or not _in_range(described, converted):
            fault = ""
        elif described.form is not None and value != described.default:
            texts = converted if isinstance(converted, tuple) else (converted,)
            fault = next((f" ({why})" for text in texts if (why := described.form.find_fault(text)) is not None), None)
        if fault is not None:
            shown = "…" if described.secret else repr(value)
            raise self._error(key, f"= {shown}: must be {described.allowed(kind)}{fault}")
        return self._folder / os.path.expanduser(converted) if isinstance(converted, Path) else converted

    def _unknown(self, prefix: str, key: str, fields: Mapping[str, object]) -> ConfigError:
        here = [prefix + name for name in fields]
        near = _nearest(key, here, 0.6) or _nearest(key, [row.key for row in describe(self._root)], 0.7)
        near = near or _nearest(key, here, 0.0)
        return self._error(prefix + key, f"is not a known setting; the nearest is {near}")

    def _error(self, key: str, sentence: str) -> ConfigError:
        return ConfigError(f"{self._source}: {key} {sentence}")


def _nearest(key: str, known: Iterable[str], cutoff: float) -> str | None:
    """The dotted key of `known` whose last part is most like `key`; of equals, the first."""
    by_leaf: dict[str, str] = {}
    for dotted in known:
        by_leaf.setdefault(dotted.rpartition(".")[2], dotted)
    found = difflib.get_close_matches(key, by_leaf, n=1, cutoff=cutoff)
    return by_leaf[found[0]] if found else None


def _convert(kind: Any, value: Any) -> Any:
    """`value` as a `kind`, or UNSET if it is of another type. A whole number is a number, a truth value is not."""
    if kind is Path:
        return Path(value) if isinstance(value, str | Path) and str(value) and "\0" not in str(value) else UNSET
    if kind is float:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else UNSET
    if kind is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else UNSET
    if kind == tuple[str, ...]:
        return tuple(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else UNSET
    if kind == dict[str, str]:
        return value if isinstance(value, dict) and all(isinstance(one, str) for one in value.values()) else UNSET
    return value if isinstance(value, kind) else UNSET


def _in_range(described: Setting, value: Any) -> bool:
    if described.choices:
        return value in described.choices
    if isinstance(value, int | float) and not isinstance(value, bool):
        # Written so that NaN, which compares false with everything, is refused.
        return (described.least is None or value >= described.least) and (
            described.most is None or value <= described.most
        )
    return True
