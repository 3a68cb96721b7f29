"""Whether a token may: judged in the applied state, with one sentence for each refusal, for every request through every door.

What a command or a query needs stands in `state.permissions`; requests that are neither name their one permission here.
"""

from coordd.acl.authorizer import Authorizer
from coordd.errors import DeniedError, NoLeaderError
from coordd.messages.command import Command
from coordd.messages.query import Query
from coordd.server.node import Node
from coordd.state.permissions import Permission

__all__ = ["Authority"]


class Authority:
    """Stateless but for its node, whose state may be replaced at any time."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def of(self, token: str) -> tuple[str, Authorizer]:
        """Accessor and authorizer of a token. Raises: DeniedError; NoLeaderError while there is no state to judge in."""
        if self._node.refill.lost:
            raise NoLeaderError("this server's state was found damaged and is being replaced: ask another server")
        found = self._node.machine.authorizer(token)
        if found is None:
            raise DeniedError("ACL token not found: it is unknown here, or was deleted")
        return found

    def demand(self, token: str, item: Command | Query) -> tuple[str, Authorizer]:
        """Accessor and authorizer of a token that may do this. Raises: DeniedError."""
        return self._demand(token, self._node.machine.required(item))

    def demand_one(self, token: str, permission: Permission) -> None:
        """Raises: DeniedError unless the token has this permission."""
        self._demand(token, (permission,))

    def _demand(self, token: str, permissions: tuple[Permission, ...]) -> tuple[str, Authorizer]:
        accessor, authorizer = self.of(token)
        for permission in permissions:
            if not permission.granted(authorizer):
                raise DeniedError(f"permission denied: {_needed(permission)}")
        return accessor, authorizer


def _needed(permission: Permission) -> str:
    if permission.resource == "anything":
        return f"this token may {permission.access} nothing"
    what = f' on "{permission.name}"' if permission.name else ""
    return f"{permission.resource}:{permission.access}{what} is needed"
