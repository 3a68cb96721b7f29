"""What clients do with the catalog: each registers instances of one service on a node of its own, and looks at all."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from coordd.messages.client import Consistency, Read
from coordd.messages.command import CommandResult, Deregister, Register, ServiceDefinition
from coordd.messages.query import ServiceHealth
from tests.sim.asking import Answer
from tests.sim.keys import judge_read

if TYPE_CHECKING:
    from tests.sim.workload import Client

__all__ = ["InstanceWork"]

SERVICE = "web"
INSTANCES = 3


class InstanceWork:
    def __init__(self, client: "Client") -> None:
        self._client = client
        self._chance = client.chance
        self.kinds: dict[str, Callable[[], None]] = {
            "register": self._register,
            "deregister": self._deregister,
            "instances": self._look,
        }

    def _register(self) -> None:
        instance = ServiceDefinition(f"i{self._chance.randrange(INSTANCES)}", SERVICE, port=self._chance.randint(1, 9))
        self._write(Register(f"node-{self._client.name}", "10.0.0.1", services=(instance,)))

    def _deregister(self) -> None:
        """One instance, or the node with all of them."""
        instance = self._chance.choice(["", *(f"i{number}" for number in range(INSTANCES))])
        self._write(Deregister(f"node-{self._client.name}", service_id=instance))

    def _write(self, command: Register | Deregister) -> None:
        def written(result: CommandResult | None) -> None:
            self._client.done("writes" if result is not None else "")

        self._client.asker.write(command, written)

    def _look(self) -> None:
        consistency: Consistency = self._chance.choice(["default", "consistent", "stale"])
        client = self._client

        def answered(answer: Answer | None) -> None:
            body = judge_read(client, ("service", SERVICE), consistency, answer) if answer else None
            client.done("lists" if body is not None else "")

        client.asker.ask(Read(ServiceHealth(SERVICE), consistency), True, answered)
