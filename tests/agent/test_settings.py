"""The example files show every setting, tell the truth about it, and load; whatever is wrong is named."""

import tomllib
from pathlib import Path

import pytest

from coordd.config import load
from coordd.errors import ConfigError
from coordd_agent.registry import Registry
from coordd_agent.services_files import read_services
from coordd_agent.settings import AgentSettings, ServicesFile
from tests.config.examples import CONFIGS, check_complete, check_strict, tables

AGENT, WEB = CONFIGS / "agent.toml", CONFIGS / "services.d" / "web.toml"


@pytest.mark.parametrize(("path", "cls"), [(AGENT, AgentSettings), (WEB, ServicesFile)])
def test_examples_are_complete_and_load(path: Path, cls: type) -> None:
    check_complete(path, cls)
    load(cls, path)


@pytest.mark.parametrize(
    ("path", "cls", "table"),
    [(path, cls, table) for path, cls in ((AGENT, AgentSettings), (WEB, ServicesFile)) for table in tables(cls)],
)
def test_unknown_keys_are_refused_in_every_table(path: Path, cls: type, table: str) -> None:
    check_strict(tomllib.loads(path.read_text()), cls, table)


def test_the_example_services_can_be_registered() -> None:
    registry = Registry()
    services, checks = read_services(WEB.parent)
    registry.load_files(services, checks)
    assert registry.services["web"].definition.tags == ("blue",)
    assert registry.checks["service:web"].spec.http == "http://127.0.0.1:8080/"
    assert registry.checks["ssh"].service_id == ""


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            '[[services]]\nname = "w"\n[[services.checks]]\nhttp = "http://h/"\ntcp = "h:1"',
            "give exactly one of http, tcp",
        ),
        ('[[services]]\nname = "w"\n[[services.checks]]\n', "give exactly one of http, tcp"),
        ('[[services]]\nname = "w"\n[[services.checks]]\ntcp = "h"', "must be host:port"),
        ('[[services]]\nname = ""', "must be a text that is not empty"),
        ('[[checks]]\ntcp = "h:1"', "a check of the host itself needs one"),
        ('[[services]]\nname = "w"\naddress = "no address"', "must be an IP address or a host's name"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(ConfigError, match=complaint) as caught:
        read_services(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "x.toml"))
