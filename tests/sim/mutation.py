"""Put a bug into the product's code while a test runs: one named function, one piece of its source exchanged.

The function object stays the same and only its code is swapped, so that every reference to it, in whatever table, meets
the bug. A piece that is no longer in the source is an error: the bug must be planted anew, not silently left out.
"""

import ast
import contextlib
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import NamedTuple

__all__ = ["Edit", "planted"]


class Edit(NamedTuple):
    """`where`: "package.module:function" or "package.module:Class.function"."""

    where: str
    old: str
    new: str


@contextlib.contextmanager
def planted(*edits: Edit) -> Iterator[None]:
    """The code with these edits; as it was, afterwards."""
    with contextlib.ExitStack() as undo:
        for edit in edits:
            function = _function(edit.where)
            undo.callback(setattr, function, "__code__", function.__code__)
            function.__code__ = _edited(function, edit)
        yield


def _function(where: str) -> FunctionType:
    module, _, path = where.partition(":")
    found: object = importlib.import_module(module)
    for name in path.split("."):
        found = inspect.getattr_static(found, name)
    if isinstance(found, property):
        found = found.fget
    if isinstance(found, classmethod | staticmethod):
        found = found.__func__
    if callable(found):
        found = inspect.unwrap(found)
    assert isinstance(found, FunctionType), where
    return found


def _edited(function: FunctionType, edit: Edit) -> CodeType:
    # The text is read anew for each edit, so several edits of one function must be one.
    source = textwrap.dedent(inspect.getsource(function))
    if edit.old not in source:
        raise LookupError(f"{edit.where} no longer contains {edit.old!r}")
    tree = ast.parse(source.replace(edit.old, edit.new))
    (definition,) = tree.body
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    names: dict[str, object] = {}
    exec(compile(tree, edit.where, "exec"), function.__globals__, names)
    code = names[definition.name].__code__  # type: ignore[attr-defined]
    assert isinstance(code, CodeType)
    assert not code.co_freevars
    return code
