"""The agent's own token: read from its file, and what the cluster makes of it."""

import asyncio
import logging
from pathlib import Path

from coordd.errors import ConfigError, CoorddError, DeniedError, NotFoundError
from coordd.messages.client import ResolveToken, TokenRules
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
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else "not a token"
        raise ConfigError(f"token_file {path} can't be read: {reason}") from error
    if not token.isprintable() or " " in token:
        raise ConfigError(f"token_file {path} holds more than one token")
    return token


class Rights:
    def __init__(self, cluster: Cluster) -> None:
        self.state = "unknown"
        """valid, anonymous, denied or unknown."""
        self.acl_enabled: bool | None = None
        self._cluster = cluster
        self._ask = asyncio.Event()

    def ask_again(self) -> None:
        """There is another token."""
        self._ask.set()

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff(RETRY_S, MAX_RETRY_S)
        while True:
            pause = ASK_EVERY_S if await self._look() else backoff.pause()
            if pause == ASK_EVERY_S:
                backoff.reset()
            try:
                async with asyncio.timeout(pause):
                    await self._ask.wait()
            except TimeoutError:
                continue
            self._ask.clear()

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
