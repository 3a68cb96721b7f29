"""Settings of coordctl and where each came from: option, environment, the user's file, the system's file, default.

`resolve` is pure but for reading the two files. Each place is checked by itself, so that an error names the place. A
file that does not exist is no error, one that can't be read is. An environment variable set to nothing counts as unset.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from coordd.config import ADDRESS, PUBLIC_KEY, Form, build, describe, from_text, read_toml, setting, table
from coordd.errors import ConfigError

__all__ = ["CliSettings", "Resolved", "Server", "default_agent_socket", "resolve", "system_file", "user_file"]

PREFIX = "COORD_"


@dataclass(frozen=True)
class Server:
    """A server and the key it must prove to have."""

    address: str
    public_key: str

    @classmethod
    def parse(cls, text: str) -> "Server":
        address, _, key = text.partition("@")  # the first one: a key may contain the sign
        return cls(address, key)


def _server_fault(text: str) -> str | None:
    server = Server.parse(text)
    return ADDRESS.find_fault(server.address) or PUBLIC_KEY.find_fault(server.public_key)


SERVER = Form("ADDRESS@PUBLICKEY, such as 10.0.0.1:8311@ and the 40 characters of the server's key", _server_fault)


@table
class CliSettings:
    """All that coordctl can be told, whatever the command."""

    agent: Path | None = setting("socket of the local agent", default=None)
    servers: tuple[str, ...] = setting("servers to talk to in place of the local agent", default=(), form=SERVER)
    token: str = setting("secret of the ACL token", default="", secret=True)
    token_file: Path | None = setting("file with the secret of the ACL token", default=None)
    output: str = setting("how results are printed", default="table", choices=("table", "json"))
    timeout_s: float = setting("how long to wait for an answer", default=10.0, unit="s", least=0.05, most=3600)
    consistency: str = setting(
        "which servers may answer a read", default="default", choices=("default", "consistent", "stale")
    )
    dns_address: str = setting("where the agent answers DNS, if not where it says itself", default="", form=ADDRESS)


@dataclass(frozen=True)
class Resolved:
    """The settings, and for each the place that gave it."""

    settings: CliSettings
    sources: Mapping[str, str]
    """Like "option --timeout-s", "COORD_SERVERS" or a file's path; keys not in here have their defaults."""
    ranks: Mapping[str, int]
    """The lower, the stronger the place."""

    def source(self, key: str) -> str:
        return self.sources.get(key, "default")

    @property
    def direct(self) -> bool:
        """Servers are asked, not the agent: unless a stronger place names the agent."""
        return bool(self.settings.servers) and self._rank("servers") <= self._rank("agent")

    @property
    def servers(self) -> tuple[Server, ...]:
        return tuple(Server.parse(text) for text in self.settings.servers)

    @property
    def token_source(self) -> str:
        """The place that names the token, directly or by a file: the stronger of the two."""
        return self.source("token_file" if self._rank("token_file") < self._rank("token") else "token")

    def read_token(self) -> str:
        """The secret, or "" for the anonymous token. Raises: ConfigError."""
        path = self.settings.token_file
        if path is None or self._rank("token_file") >= self._rank("token"):
            return self.settings.token
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text file"
            raise ConfigError(f"token file {path} ({self.source('token_file')}) can't be read: {reason}") from error

    def _rank(self, key: str) -> int:
        return self.ranks.get(key, len(fields(CliSettings)))


def user_file(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or "/nonexistent", ".config")
    return Path(base, "coordd", "coordctl.toml")


def system_file() -> Path:
    return Path("/etc/coordd/coordctl.toml")


def default_agent_socket(environ: Mapping[str, str]) -> Path:
    """The system's agent if there is one, else the user's own."""
    system = Path("/run/coordd/agent.sock")
    own = environ.get("XDG_RUNTIME_DIR")
    return Path(own, "coordd", "agent.sock") if own and not system.exists() else system


def resolve(options: Mapping[str, Any], environ: Mapping[str, str], user: Path, system: Path) -> Resolved:
    """Merge all places. `options` holds what the command line gave, by setting. Raises: ConfigError."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    ranks: dict[str, int] = {}
    for rank, place in enumerate([_options(options), _environment(environ), _file(user), _file(system)]):
        for key, (value, source) in place.items():
            if key not in values:
                values[key], sources[key], ranks[key] = value, source, rank
    return Resolved(CliSettings(**values), sources, ranks)


_Place = dict[str, tuple[Any, str]]
"""Checked value and source by setting."""


def _options(options: Mapping[str, Any]) -> _Place:
    return {key: _checked(key, value, f"option --{_option(key)}") for key, value in options.items()}


def _environment(environ: Mapping[str, str]) -> _Place:
    kinds = {row.key: row.kind for row in describe(CliSettings)}
    texts = {key: environ.get(PREFIX + key.upper()) for key in kinds}
    if agent := texts["agent"]:
        texts["agent"] = agent.removeprefix("ipc://")
    return {
        key: _checked(key, from_text(kinds[key], text), PREFIX + key.upper()) for key, text in texts.items() if text
    }


def _checked(key: str, value: Any, source: str) -> tuple[Any, str]:
    return getattr(build(CliSettings, {key: value}, source), key), source


def _option(key: str) -> str:
    return {"servers": "server", "timeout_s": "timeout"}.get(key, key.replace("_", "-"))


def _file(path: Path) -> _Place:
    try:
        if not path.exists():
            return {}
    except OSError:
        pass  # a folder that may not be entered: reading says so in words
    given = read_toml(path)
    settings = build(CliSettings, given, str(path), path.parent)
    return {key: (getattr(settings, key), str(path)) for key in given}
