"""The replicated state in memory: what a crash leaves of it is what was serialised at the last checkpoint."""

from typing import NamedTuple

from coordd.acl.authorizer import Authorizer
from coordd.state.machine import Machine
from coordd.types import Index, Term

__all__ = ["EMPTY", "EVERYTHING", "Image", "image_of", "machine_from"]

EVERYTHING = Authorizer((), management=True, enabled=False)


class Image(NamedTuple):
    """A state file as bytes; b"" is the state before the first entry."""

    applied: Index
    term: Term
    content: bytes


EMPTY = Image(0, 0, b"")


def image_of(machine: Machine) -> Image:
    return Image(machine.applied, machine.applied_term, machine._connection.serialize())


def machine_from(image: Image) -> Machine:
    machine = Machine.open(":memory:")
    if image.content:
        machine._connection.deserialize(image.content)
        machine._load()
    return machine
