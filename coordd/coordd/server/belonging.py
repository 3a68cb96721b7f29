"""Whether configuration file, key file and data folder are those of one and the same server of one cluster. Pure.

A server under a key that nobody expects is refused by all others, in their logs, while its own says nothing: so it is
better not to start. Every mismatch is a ConfigError that names the two things that differ.
"""

from collections.abc import Sequence

from coordd.errors import ConfigError
from coordd.server.settings import ServerSettings
from coordd.types import Configuration, ServerId

__all__ = ["require_listed_key", "require_membership", "was_removed"]


def require_listed_key(settings: ServerSettings, public_key: str) -> None:
    """The key file holds the pair that `[[servers]]` lists for this server."""
    for number, entry in enumerate(settings.servers):
        if entry.name == settings.name and entry.public_key != public_key:
            raise ConfigError(
                f"key file {settings.key_file} holds the public key {public_key}, but servers[{number}].public_key"
                f" of {settings.name} is {entry.public_key}: one of them is another server's"
            )


def was_removed(me: ServerId, configurations: Sequence[Configuration]) -> bool:
    """Whether the newest of these configurations, oldest first, no longer has a member that an earlier one had.

    Derived from what is known, not remembered: a server that lags may meet its first membership and its last in one message.
    """
    if not configurations or configurations[-1].member(me) is not None:
        return False
    return any(configuration.member(me) is not None for configuration in configurations)


def require_membership(
    settings: ServerSettings, me: ServerId, public_key: str, configuration: Configuration | None
) -> None:
    """The newest membership that the data folder remembers is of the cluster of that name, and has this key."""
    if configuration is None:
        return
    if configuration.cluster_name != settings.cluster_name:
        raise ConfigError(
            f"data_dir {settings.data_dir} belongs to cluster {configuration.cluster_name!r}, but cluster_name is"
            f" {settings.cluster_name!r}: use another data folder, or the right name"
        )
    member = configuration.member(me)
    if member is not None and member.public_key != public_key:
        raise ConfigError(
            f"key file {settings.key_file} holds the public key {public_key}, but the cluster knows {settings.name}"
            f" by {member.public_key}: use the key file that it had when it was added"
        )
