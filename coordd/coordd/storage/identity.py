"""Who owns this data folder: `identity.json`, written when the folder is first used and at every start.

Identity of a server = name and incarnation (rule 75). The file appears last when a folder is set up, so a
folder that has it once had a log and a mark too.
"""

import uuid
from pathlib import Path

import msgspec
from crc32c import crc32c

from coordd.errors import DamagedError, StorageError
from coordd.storage.failures import storing
from coordd.storage.files import write_durably
from coordd.types import ServerId, make_server_id

__all__ = ["Identity", "new_identity", "read_identity", "write_identity"]

_FILE = "identity.json"


class Identity(msgspec.Struct, frozen=True):
    """What the file holds."""

    name: str
    incarnation: str
    """32 hexadecimal digits, drawn when the folder was first used."""
    boot: int = 0
    """Number of starts so far."""
    cluster_id: str = ""
    """"" until the server has become part of a cluster; then it never changes."""

    @property
    def server(self) -> ServerId:
        return make_server_id(self.name, self.incarnation)

    def joined(self, cluster_id: str) -> "Identity":
        """As a member of that cluster. Raises: StorageError if the folder belongs to another one."""
        if self.cluster_id and self.cluster_id != cluster_id:
            raise StorageError(
                f"the data folder of server {self.name} belongs to cluster {self.cluster_id}, not to {cluster_id}:"
                " use another data folder"
            )
        return msgspec.structs.replace(self, cluster_id=cluster_id)


class _Sealed(Identity, frozen=True, kw_only=True):
    """The file: a digit of the incarnation that flips would make another server of this one."""

    checksum: str


def new_identity(name: str) -> Identity:
    return Identity(name=name, incarnation=uuid.uuid4().hex)


def read_identity(folder: Path, name: str) -> Identity | None:
    """None: the folder was never used. Raises: StorageError if it is another server's, DamagedError if unreadable."""
    path = folder / _FILE
    with storing(path):
        if not path.exists():
            return None
        content = path.read_bytes()
    try:
        sealed = msgspec.json.decode(content, type=_Sealed)
        identity = Identity(sealed.name, sealed.incarnation, sealed.boot, sealed.cluster_id)
        if sealed != _seal(identity):
            raise msgspec.ValidationError("its checksum is that of another content")
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamagedError(
            f"{path} is damaged ({error}): restore it, or let this server join anew with an empty folder"
        ) from error
    if identity.name != name:
        raise StorageError(f"{folder} belongs to server {identity.name}, not to {name}: use another data folder")
    return identity


def write_identity(folder: Path, identity: Identity) -> None:
    """Durably, or the old file stays. Raises: DiskFullError, StorageError."""
    write_durably(folder / _FILE, msgspec.json.format(msgspec.json.encode(_seal(identity))) + b"\n")


def _seal(identity: Identity) -> _Sealed:
    checksum = f"{crc32c(msgspec.json.encode(identity)):08x}"
    return _Sealed(**msgspec.structs.asdict(identity), checksum=checksum)
