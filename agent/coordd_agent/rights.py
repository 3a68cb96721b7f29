"""The agent's own token: read from its file, and what the cluster makes of it."""

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

from coordd.errors import ConfigError, CoorddError, DeniedError, NotFoundError
from coordd.messages.query import ResolveToken, TokenRules
from coordd_agent.cluster import Backoff, Cluster

__all__ = ["Rights", "read_token"]

log = logging.getLogger(__name__)

ASK_EVERY_S = 60.0
RETRY_S, MAX_RETRY_S = 0.5, 10.0


def read_token(path: Path | None) -> str:
    """The secret, or "" for the anonymous token. Raises: ConfigError."""
    if path is None:
        return ""
    try:
        with path.open(encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            token = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else "not a token"
        raise ConfigError(f"token_file {path} can't be read: {reason}") from error
    if not token.isprintable() or " " in token:
        raise ConfigError(f"token_file {path} holds more than one token")
    if mode & 0o077:
        log.warning("token_file %s has mode %04o: others may read the token; chmod 600 it", path, mode)
    return token


class Rights:
    def __init__(self, cluster: Cluster, on_answer: Callable[[], None]) -> None:
        """`on_answer`: what was asked for by `ask_again` is known."""
        self.state = "unknown"
        """valid, anonymous, denied or unknown."""
        self.acl_enabled: bool | None = None
        self._cluster = cluster
        self._on_answer = on_answer
        self._ask = asyncio.Event()
        self._asked = False

    def trusted(self) -> bool:
        """Whether what this token may not see is hidden on purpose, and not because it is missing or no longer valid."""
        return self.state == "valid"

    def ask_again(self) -> None:
        """There is another token, or it was refused."""
        self._asked = True
        self._ask.set()

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff(RETRY_S, MAX_RETRY_S)
        while True:
            self._ask.clear()
            pause = backoff.pause()
            if await self._look():
                backoff.reset()
                pause = ASK_EVERY_S
                self._tell()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._ask.wait()

    def _tell(self) -> None:
        # Not if it was asked again while the answer, about another token perhaps, was on its way.
        if self._asked and not self._ask.is_set():
            self._asked = False
            self._on_answer()

    async def _look(self) -> bool:
        """True if the cluster gave an answer."""
        try:
            rules = (await self._cluster.read(ResolveToken())).value
        except (DeniedError, NotFoundError) as error:
            if self.state != "denied":
                log.warning("the agent's token is not valid: %s; answers continue from the cache", error)
            self.state = "denied"
            return True
        except CoorddError:
            return False
        if isinstance(rules, TokenRules):
            self._take(rules)
        return True

    def _take(self, rules: TokenRules) -> None:
        was = (self.acl_enabled, self.state)
        self.acl_enabled = rules.enabled
        self.state = "valid" if rules.accessor else "anonymous"
        if not rules.enabled and was[0] is not False:
            log.warning("everything is allowed: ACLs are off until `coordctl acl bootstrap`")
        elif rules.enabled and (self.acl_enabled, self.state) != was:
            if self.state == "anonymous":
                log.warning("the agent has no token: set token_file; what the anonymous token may not do fails")
            else:
                log.info("the agent's token is valid")
