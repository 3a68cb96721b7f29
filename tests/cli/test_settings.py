"""Where settings come from, which place wins, and that errors name it."""

from pathlib import Path

import pytest

from coordd.config import load
from coordd.errors import ConfigError
from coordd_cli.settings import CliSettings, Resolved, Server, default_agent_socket, resolve, user_file
from tests.config.examples import CONFIGS, check_complete, check_strict

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
NOWHERE = Path("/nonexistent/coordctl.toml")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_first_place_wins(tmp_path: Path) -> None:
    system = write(
        tmp_path / "system.toml", 'output = "json"\ntimeout_s = 1\nconsistency = "stale"\nagent = "own.sock"'
    )
    user = write(tmp_path / "user.toml", "timeout_s = 2\n")
    resolved = resolve({"output": "table"}, {"COORD_TIMEOUT_S": "3", "COORD_TOKEN": ""}, user, system)
    assert resolved.settings == CliSettings(
        output="table", timeout_s=3.0, consistency="stale", agent=tmp_path / "own.sock"
    )
    assert {key: resolved.source(key) for key in ("output", "timeout_s", "consistency", "token")} == {
        "output": "option --output",
        "timeout_s": "COORD_TIMEOUT_S",
        "consistency": str(system),
        "token": "default",
    }


@pytest.mark.parametrize(
    ("options", "environ", "content", "sentence"),
    [
        ({"output": "xml"}, {}, "", "option --output: output = 'xml': must be one of table, json"),
        ({"timeout_s": 0.0}, {}, "", "option --timeout: timeout_s = 0.0: must be a number from 0.05 to 3600 (s)"),
        ({"servers": ["1.2.3.4:1"]}, {}, "", "option --server: servers = ['1.2.3.4:1']: must be ADDRESS@PUBLICKEY"),
        ({}, {"COORD_OUTPUT": "xml"}, "", "COORD_OUTPUT: output = 'xml': must be one of table, json"),
        ({}, {"COORD_TIMEOUT_S": "soon"}, "", "COORD_TIMEOUT_S: timeout_s = 'soon': must be a number"),
        ({}, {}, "outptu = 1", "{file}: outptu is not a known setting; the nearest is output"),
        ({}, {}, "output = 'xml'", "{file}: output = 'xml': must be one of table, json"),
        ({"output": "json"}, {}, "output = 'xml'", "{file}: output = 'xml': must be one of table, json"),
        ({}, {}, "output", "{file}: is not valid TOML"),
    ],
)
def test_errors_name_the_place(
    tmp_path: Path, options: dict[str, object], environ: dict[str, str], content: str, sentence: str
) -> None:
    file = write(tmp_path / "user.toml", content)
    with pytest.raises(ConfigError) as caught:
        resolve(options, environ, file, NOWHERE)
    assert str(caught.value).startswith(sentence.format(file=file))


def resolved(options: dict[str, object], environ: dict[str, str]) -> Resolved:
    return resolve(options, environ, NOWHERE, NOWHERE)


def test_servers_or_the_agent_as_the_stronger_place_says() -> None:
    servers = f"127.0.0.1:1@{KEY},[::1]:2@{KEY}"
    assert not resolved({}, {}).direct
    assert resolved({}, {"COORD_SERVERS": servers}).direct
    assert resolved({}, {"COORD_SERVERS": servers}).servers == (Server("127.0.0.1:1", KEY), Server("[::1]:2", KEY))
    assert not resolved({"agent": "/a"}, {"COORD_SERVERS": servers}).direct
    assert resolved({"servers": [servers.split(",")[0]]}, {"COORD_AGENT": "/a"}).direct
    assert resolved({}, {"COORD_AGENT": "ipc:///a"}).settings.agent == Path("/a")


def test_the_token_of_the_stronger_place(tmp_path: Path) -> None:
    file = write(tmp_path / "token", "from-file\n")
    assert resolved({"token_file": str(file)}, {"COORD_TOKEN": "secret"}).read_token() == "from-file"
    assert resolved({}, {"COORD_TOKEN": "secret", "COORD_TOKEN_FILE": str(file)}).read_token() == "secret"
    assert resolved({}, {"COORD_TOKEN_FILE": str(file)}).token_source == "COORD_TOKEN_FILE"
    assert resolved({}, {}).read_token() == ""
    with pytest.raises(ConfigError, match=r"token file /nowhere \(COORD_TOKEN_FILE\) can't be read: No such file"):
        resolved({}, {"COORD_TOKEN_FILE": "/nowhere"}).read_token()


def test_default_places(tmp_path: Path) -> None:
    assert user_file({"HOME": "/home/a"}) == Path("/home/a/.config/coordd/coordctl.toml")
    assert user_file({"HOME": "/home/a", "XDG_CONFIG_HOME": "/x"}) == Path("/x/coordd/coordctl.toml")
    assert default_agent_socket({}) == Path("/run/coordd/agent.sock")
    assert default_agent_socket({"XDG_RUNTIME_DIR": "/x"}) == Path("/x/coordd/agent.sock")


def test_the_example_shows_every_setting() -> None:
    example = CONFIGS / "coordctl.toml"
    check_complete(example, CliSettings)
    assert load(CliSettings, example) == CliSettings()
    check_strict({}, CliSettings, "")
