"""The shape of the source: who imports whom, how long a module may be, and what no file may hold.

The import rules are import-linter's contracts in pyproject.toml. Each is broken on purpose here, in a copy of the
tree's outline, because a contract that notices nothing looks just like one that is kept.
"""

import ast
import itertools
import os
import shutil
import subprocess
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"coordd": ROOT / "coordd", "coordd_agent": ROOT / "agent", "coordd_cli": ROOT / "cli"}
MAX_MODULE_LINES = 450
MAX_FUNCTION_LINES = 60

# "path" of a module or "path::Class.function" that may be longer, with the reason. A line that is no longer needed
# fails test_no_exemption_outlives_its_need.
MAY_BE_LONGER: dict[str, str] = {}

# The folders in which this project is or was worked on; spelled so that this file passes its own test.
MACHINE_PATHS = [b"/" + name + b"/" for name in (b"work", b"root")]


def product_modules() -> list[Path]:
    return sorted(module for name, folder in PACKAGES.items() for module in (folder / name).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Qualified name and length in lines of each function, nested ones and methods too."""
    for node in ast.iter_child_nodes(tree):
        inner = prefix
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inner = f"{prefix}{node.name}."
            if not isinstance(node, ast.ClassDef) and node.end_lineno is not None:
                yield f"{prefix}{node.name}", node.end_lineno - node.lineno + 1
        yield from functions(node, inner)


def oversized() -> dict[str, int]:
    """Modules and functions beyond the limits, with their length."""
    found = {}
    for path in product_modules():
        source = path.read_text(encoding="utf-8")
        if (lines := len(source.splitlines())) > MAX_MODULE_LINES:
            found[relative(path)] = lines
        for name, length in functions(ast.parse(source)):
            if length > MAX_FUNCTION_LINES:
                found[f"{relative(path)}::{name}"] = length
    return found


def test_modules_and_functions_stay_short() -> None:
    too_long = {name: lines for name, lines in oversized().items() if name not in MAY_BE_LONGER}
    assert not too_long, f"longer than {MAX_MODULE_LINES} (module) or {MAX_FUNCTION_LINES} (function) lines"


def test_no_exemption_outlives_its_need() -> None:
    assert set(MAY_BE_LONGER) <= set(oversized())


def test_every_module_has_a_docstring() -> None:
    modules = [*product_modules(), *sorted((ROOT / "tests").rglob("*.py"))]
    bare = [relative(path) for path in modules if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert not bare


def test_only_the_command_line_prints() -> None:
    prints = [
        f"{relative(path)}:{node.lineno}"
        for path in product_modules()
        if not path.is_relative_to(PACKAGES["coordd_cli"])
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not prints, "servers and agents log; they do not print"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="asks git which files belong to the project")
def test_no_tracked_file_names_a_developers_folder() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=30).stdout
    files = [ROOT / os.fsdecode(name) for name in tracked.split(b"\0") if name]
    found = [
        f"{relative(path)}:{number}"
        for path in files
        if path.is_file()
        for number, line in enumerate(path.read_bytes().splitlines(), start=1)
        if any(machine_path in line for machine_path in MACHINE_PATHS)
    ]
    assert not found


# --- The import contracts ---------------------------------------------------------------------------------------------


class Import(NamedTuple):
    """`importer` contains the statement `import imported`."""

    importer: str
    imported: str


def contract_ids() -> list[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [contract["id"] for contract in settings["tool"]["importlinter"]["contracts"]]


def room(name: str) -> str:
    """A module in the room `name` of coordd; the client library is named as a whole."""
    return "coordd.client" if name == "client" else f"coordd.{name}.planted"


ROOMS = ["raft", "state", "storage", "transport", "acl"]

ROOM_TO_ROOM = [
    Import(room(one), room(other))
    for one, other in [
        *itertools.permutations(ROOMS, 2),
        *itertools.product(ROOMS, ["server", "client"]),
        *itertools.product(["client"], [*ROOMS, "server"]),
        *itertools.product(["messages"], [*ROOMS, "server", "client"]),
    ]
    if (one, other) != ("state", "acl")
]

# For each contract the imports it must notice.
FORBIDDEN: dict[str, list[Import]] = {
    "rooms": [
        *ROOM_TO_ROOM,
        Import("coordd.client", "coordd.transport.peers"),
        Import(room("raft"), "coordd.new_room"),
    ],
    "words": [
        Import(room("messages"), "coordd.config"),
        Import("coordd.types", room("messages")),
        Import("coordd.errors", "coordd.config"),
        Import("coordd.config", room("messages")),
    ],
    "programs": [
        Import("coordd_cli.planted", "coordd_agent.dns.planted"),
        Import("coordd_agent.planted", "coordd_cli.commands.planted"),
    ],
    "direction": [Import(room("server"), "coordd_agent.planted"), Import("coordd.client", "coordd_cli.planted")],
    "doors": [
        Import(program, internal)
        for program in ("coordd_cli.commands.planted", "coordd_agent.dns.planted")
        for internal in [*map(room, ["raft", "state", "storage", "server"]), "coordd.transport.peers"]
    ],
    "pure": [
        *(
            Import(room("raft"), outside)
            for outside in ("asyncio", "os", "random", "sqlite3", "threading", "time", "zmq")
        ),
        Import("coordd.raft.through_types", "coordd.types"),
        Import("coordd.types", "time"),
    ],
    "zmq": [
        Import(anywhere, "zmq")
        for anywhere in (room("server"), room("storage"), "coordd.client", "coordd_agent.planted", "coordd_cli.planted")
    ],
    "sqlite": [
        Import(anywhere, library)
        for anywhere in (room("server"), room("transport"), "coordd_agent.planted", "coordd_cli.planted")
        for library in ("sqlite3", "sqlite_utils")
    ],
    "terminal": [
        Import(anywhere, library)
        for anywhere in (room("server"), "coordd_agent.planted")
        for library in ("rich", "typer")
    ],
    "dns": [
        Import(anywhere, "dnslib")
        for anywhere in (room("server"), "coordd_agent.planted", "coordd_agent.checks.planted", "coordd_cli.planted")
    ],
}

# Imports that every contract must let pass.
PERMITTED = [
    *(Import(room(one), "coordd.types") for one in [*ROOMS, "server", "client", "messages"]),
    *(Import(room(one), "coordd.errors") for one in [*ROOMS, "server", "client", "messages"]),
    *(Import(room(one), room("messages")) for one in [*ROOMS, "server", "client"]),
    *(Import(room("server"), room(other)) for other in ROOMS),
    *(
        Import(importer, imported)
        for importer in ("coordd_cli.commands.planted", "coordd_agent.dns.planted")
        for imported in ("coordd.types", "coordd.errors", "coordd.config", "coordd.client", "coordd.transport.clients")
    ),
    Import("coordd.config", "coordd.types"),
    Import("coordd.errors", "coordd.types"),
    Import("coordd.server.planted", "coordd.config"),
    Import("coordd.state.planted", "coordd.acl.planted"),
    Import("coordd.state.planted", "sqlite3"),
    Import("coordd.storage.planted", "sqlite_utils"),
    Import("coordd.client", "coordd.transport.clients"),
    Import("coordd.client", "coordd.transport.security"),
    Import("coordd.transport.planted", "zmq"),
    Import("coordd_agent.planted", "coordd.messages.planted"),
    Import("coordd_agent.planted", "coordd.acl.planted"),
    Import("coordd_agent.planted", "coordd.transport"),
    Import("coordd_agent.dns.planted", "dnslib"),
    Import("coordd_cli.planted", "coordd.transport.security"),
    Import("coordd_cli.planted", "rich"),
    Import("coordd_cli.commands.planted", "typer"),
    Import("coordd_cli.dns_query", "dnslib"),
]


def lint_imports(tree: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Check the contracts in `tree`, whatever copy of the packages is installed."""
    return subprocess.run(
        [Path(sysconfig.get_path("scripts"), "lint-imports"), "--no-cache", "--no-logo", *options],
        cwd=tree,
        env={
            **os.environ,
            "COLUMNS": "10000",
            "PYTHONPATH": os.pathsep.join(str(tree / folder.name) for folder in PACKAGES.values()),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


def module_file(tree: Path, module: str) -> Path:
    """Where `module` lives below `tree`: its own file, or the __init__.py of a package that is there already."""
    package, *rest = module.split(".")
    folder = (tree / PACKAGES[package].name).joinpath(package, *rest)
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def plant(tree: Path, imports: list[Import]) -> None:
    """Write the packages' outline below `tree`, and modules that do the imports."""
    shutil.copy(ROOT / "pyproject.toml", tree)
    for name, folder in PACKAGES.items():
        for package in (folder / name).rglob("__init__.py"):
            copy = tree / package.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.touch()
    ours = [module for edge in imports for module in edge if module.split(".")[0] in PACKAGES]
    for module in ["coordd.types", "coordd.errors", "coordd.config", "coordd.client", *ours]:
        module_file(tree, module).touch()
    for importer, imported in imports:
        with module_file(tree, importer).open("a", encoding="utf-8") as file:
            file.write(f"import {imported}\n")


def test_the_contracts_are_kept() -> None:
    checked = lint_imports(ROOT)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("contract", contract_ids())
def test_a_contract_notices_that_it_is_broken(tmp_path: Path, contract: str) -> None:
    plant(tmp_path, FORBIDDEN[contract])
    checked = lint_imports(tmp_path, "--contract", contract)
    assert checked.returncode == 1, checked.stdout + checked.stderr
    missed = [edge for edge in FORBIDDEN[contract] if f"{edge.importer} -> {edge.imported} (" not in checked.stdout]
    assert not missed, checked.stdout


def test_the_contracts_permit_what_the_design_permits(tmp_path: Path) -> None:
    plant(tmp_path, PERMITTED)
    checked = lint_imports(tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
