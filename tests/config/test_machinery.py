"""The loader: each thing that can be wrong gives one sentence that names source, key, value and what is allowed."""

import os
from pathlib import Path

import pytest

from coordd.config import (
    ADDRESS,
    FQDN,
    NAME,
    PUBLIC_KEY,
    Form,
    build,
    describe,
    from_text,
    load,
    read_toml,
    setting,
    split_address,
    table,
)
from coordd.errors import ConfigError


@table
class Inner:
    """[inner]"""

    size: int = setting("a size", default=5, unit="bytes", least=1, most=10)
    ratio: float = setting("a ratio", default=0.5, least=0, most=1)


@table
class Item:
    """[[items]]"""

    name: str = setting("a name", form=NAME)
    port: int = setting("a port", default=0, least=0, most=65535)


@table
class Outer:
    """The whole."""

    word: str = setting("a word", choices=("one", "two"))
    place: Path = setting("a place", default=Path("/nowhere"))
    maybe: Path | None = setting("perhaps a place", default=None)
    flag: bool = setting("a flag", default=False)
    tags: tuple[str, ...] = setting("tags", default=(), form=NAME)
    meta: dict[str, str] = setting("meta", default={})
    secret: str = setting("a secret", default="", form=NAME, secret=True)
    inner: Inner = setting("inner", default=Inner())
    extra: Inner | None = setting("extra", default=None)
    items: tuple[Item, ...] = setting("items", default=())

    def conflicts(self) -> list[tuple[str, str]]:
        return [("flag", "= True: does not go with word two")] if self.flag and self.word == "two" else []


def test_values_of_every_kind(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(
        'word = "two"\nplace = "below/it"\ntags = ["a", "b"]\nmeta = {k = "v"}\n'
        "[inner]\nratio = 1\n[extra]\nsize = 7\n"
        '[[items]]\nname = "x"\n[[items]]\nname = "y"\nport = 80\n'
    )
    assert load(Outer, file) == Outer(
        word="two",
        place=tmp_path / "below/it",
        tags=("a", "b"),
        meta={"k": "v"},
        inner=Inner(ratio=1.0),
        extra=Inner(size=7),
        items=(Item(name="x"), Item(name="y", port=80)),
    )


def test_a_home_folder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert build(Outer, {"word": "one", "place": "~/x"}, "s", Path("/etc")).place == Path("/home/someone/x")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "word is missing: a word; must be one of one, two"),
        ({"word": "three"}, "word = 'three': must be one of one, two"),
        ({"word": 1}, "word = 1: must be one of one, two"),
        ({"word": "one", "flag": 1}, "flag = 1: must be true or false"),
        ({"word": "one", "place": ""}, "place = '': must be a path"),
        ({"word": "one", "maybe": 3}, "maybe = 3: must be a path"),
        ({"word": "one", "tags": "a"}, "tags = 'a': must be 1 to 63 letters, digits and hyphens, with no hyphen at"),
        ({"word": "one", "tags": ["a", "-"]}, "tags = ['a', '-']: must be 1 to 63 letters"),
        ({"word": "one", "meta": {"k": 1}}, "meta = {'k': 1}: must be a table of texts"),
        ({"word": "one", "inner": 1}, "inner = 1: must be a table"),
        ({"word": "one", "inner": {"size": 0}}, "inner.size = 0: must be a whole number from 1 to 10 (bytes)"),
        ({"word": "one", "inner": {"size": 11}}, "inner.size = 11: must be a whole number from 1 to 10 (bytes)"),
        ({"word": "one", "inner": {"size": True}}, "inner.size = True: must be a whole number"),
        ({"word": "one", "inner": {"size": 5.0}}, "inner.size = 5.0: must be a whole number"),
        ({"word": "one", "inner": {"ratio": float("nan")}}, "inner.ratio = nan: must be a number from 0 to 1"),
        ({"word": "one", "items": {"name": "x"}}, "items = {'name': 'x'}: must be a list of tables, written [[items]]"),
        ({"word": "one", "items": [{"name": "x"}, {}]}, "items[1].name is missing: a name; must be 1 to 63"),
        ({"word": "two", "flag": True}, "flag = True: does not go with word two"),
        ({"word": "one", "inner": {"siz": 1}}, "inner.siz is not a known setting; the nearest is inner.size"),
        ({"word": "one", "ratio": 1}, "ratio is not a known setting; the nearest is inner.ratio"),
        ({"word": "one", "items": [{"prot": 1}]}, "items[0].prot is not a known setting; the nearest is items[0].port"),
        ({"word": "one", "zzz": 1}, "zzz is not a known setting; the nearest is "),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Outer, values, "/etc/a.toml")
    assert str(caught.value).startswith(f"/etc/a.toml: {sentence}")


def test_a_secret_stays_out_of_the_error() -> None:
    with pytest.raises(ConfigError) as caught:
        build(Outer, {"word": "one", "secret": "hunter 2"}, "s")
    assert "hunter" not in str(caught.value)
    assert "secret = …: must be" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name, content, sentence in [
        ("missing", None, "can't be read: no such file or directory"),
        ("broken", b"a = ", "is not valid TOML: Invalid value (at end of document)"),
        ("latin", b'a = "\xe4"', "is not valid TOML: 'utf-8' codec can't decode"),
        ("large", b"#" * 2_000_000, "is larger than 1048576 bytes"),
    ]:
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            read_toml(path)
        assert str(caught.value).startswith(f"{path}: {sentence}")
    with pytest.raises(ConfigError, match="can't be read: is a directory"):
        read_toml(tmp_path)


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.touch(mode=0)
    if os.geteuid() == 0:
        # Root reads everything: a path below a file fails likewise in the same call.
        with pytest.raises(ConfigError, match="can't be read: not a directory"):
            read_toml(path / "below")
    else:
        with pytest.raises(ConfigError, match="can't be read: permission denied"):
            read_toml(path)


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        (
            ADDRESS,
            ["127.0.0.1:1", "[::1]:8310"],
            ["", "host:1", "1.2.3.4", "1.2.3.4:0", "1.2.3.4:65536", "::1:80", ":1"],
        ),
        (NAME, ["a", "A-1", "x" * 63], ["", "-a", "a-", "a.b", "a_b", "x" * 64, "a\n"]),
        (FQDN, ["coord", "a.b.c", "coord."], ["", ".", "a..b", "a" * 64, "a b"]),
        (PUBLIC_KEY, ["rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"], ["", "x" * 39, "x" * 41, "\\" * 40]),
    ],
)
def test_forms(form: Form, good: list[str], bad: list[str]) -> None:
    assert [text for text in good if form.find_fault(text) is not None] == []
    assert [text for text in bad if form.find_fault(text) is None] == []


def test_an_address_is_split() -> None:
    assert split_address("127.0.0.1:80") == ("127.0.0.1", 80)
    assert split_address("[fd00::1]:80") == ("fd00::1", 80)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "12", 12),
        (int, "x", "x"),
        (float, "1.5", 1.5),
        (bool, "TRUE", True),
        (bool, "0", False),
        (bool, "maybe", "maybe"),
        (tuple[str, ...], "a, b,", ["a", "b"]),
        (Path | None, "/x", "/x"),
    ],
)
def test_text_becomes_a_value_or_stays_for_the_judge(kind: object, text: str, value: object) -> None:
    assert from_text(kind, text) == value


def test_every_setting_is_described() -> None:
    keys = [row.key for row in describe(Outer)]
    assert {"word", "inner", "inner.size", "extra.ratio", "items", "items[].name"} <= set(keys)
    assert len(keys) == len(set(keys))
