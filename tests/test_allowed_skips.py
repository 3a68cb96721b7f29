"""Under CI a skip outside the list fails the run; tried with a pytest of its own on a small project."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CONFTEST = """
from pathlib import Path
from tests import allowed_skips
allowed_skips.LIST = Path(__file__).with_name("allowed.txt")
pytest_configure = allowed_skips.pytest_configure
"""

SKIPS = """
import pytest
def test_runs(): pass
def test_skips(): pytest.skip("no such program")
@pytest.mark.parametrize("kind", ["a", "b"])
@pytest.mark.skip(reason="not here")
def test_marked(kind): pass
"""


def run(folder: Path, source: str, allowed: str, *options: str, ci: str = "true") -> tuple[int, str]:
    """Run pytest on one module in `folder` under the policy; its exit code and what it printed."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(source)
    (folder / "allowed.txt").write_text(allowed)
    (folder / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *options],
        cwd=folder,
        env={**os.environ, "CI": ci, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_skip_outside_the_list_fails_the_run(tmp_path: Path, options: tuple[str, ...]) -> None:
    code, output = run(tmp_path, SKIPS, "test_it.py::test_skips\tneeds a program\n", *options)
    assert code == pytest.ExitCode.TESTS_FAILED, output
    assert "test_it.py::test_marked[a]: Skipped: not here" in output
    assert "test_it.py::test_marked[b]: Skipped: not here" in output
    assert "test_it.py::test_skips: " not in output


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_module_that_skips_itself_fails_the_run(tmp_path: Path, options: tuple[str, ...]) -> None:
    source = 'import pytest\npytest.skip("not on this system", allow_module_level=True)\n'
    code, output = run(tmp_path, source, "", *options)
    assert code == pytest.ExitCode.TESTS_FAILED, output
    assert "test_it.py: Skipped: not on this system" in output


def test_listed_skips_pass(tmp_path: Path) -> None:
    allowed = "# a comment\n\ntest_it.py::test_skips\tneeds a program\ntest_it.py::test_marked[*]\tis not for here\n"
    code, output = run(tmp_path, SKIPS, allowed)
    assert code == pytest.ExitCode.OK, output


@pytest.mark.parametrize("ci", ["", "false"])
def test_outside_ci_skips_pass(tmp_path: Path, ci: str) -> None:
    code, output = run(tmp_path, SKIPS, "", ci=ci)
    assert code == pytest.ExitCode.OK, output


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    source = "import pytest\n@pytest.mark.xfail(reason='known')\ndef test_fails(): assert False\n"
    code, output = run(tmp_path, source, "")
    assert code == pytest.ExitCode.OK, output


def test_a_line_without_a_reason_is_refused(tmp_path: Path) -> None:
    code, output = run(tmp_path, SKIPS, "test_it.py::test_skips\n")
    assert code == pytest.ExitCode.USAGE_ERROR, output
    assert "allowed.txt:1: expected a node id, a tab and a reason" in output
