"""What each side says first: the versions it speaks, what it is, and what the client wishes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from buttersink.errors import ProtocolError
from buttersink.remote.protocol import Versions
from buttersink.remote.values import Fields, path_text
from buttersink.stores.base import Mode, Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from buttersink.remote.values import Json

_MOST_VERSIONS = 1_000_000
_Choice = TypeVar("_Choice", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Wish:
    """
    What a client wants a location opened as.

    Attributes:
        mode: What it is going to do.
        role: What the command line uses the location as.
        single: Name of the one snapshot in the directory that is meant; None for no such.
        all_below: Whether every snapshot below is meant, and not the directory as a snapshot.
        remember: Whether sizes may be remembered on the far side.

    """

    mode: Mode = Mode.READ
    role: Role = Role.LISTING
    single: bytes | None = None
    all_below: bool = True
    remember: bool = False


@dataclass(frozen=True, slots=True)
class Hello:
    """
    A greeting.

    Attributes:
        versions: Of the protocol, that the side speaks.
        program: Version of ButterSink.
        kernel: Release of the kernel.
        progs: Version of btrfs-progs, empty where there are none.
        mode: From a server: the most that it allows.
        directory: From a server: which it serves.
        wish: From a client.

    """

    versions: Versions
    program: str
    kernel: str
    progs: str = ""
    mode: Mode | None = None
    directory: bytes | None = None
    wish: Wish | None = None

    def to_json(self) -> Json:
        """Return it as it travels."""
        document: Json = {
            "versions": [*self.versions],
            "program": self.program,
            "kernel": self.kernel,
            "btrfs": self.progs,
        }
        if self.mode is not None and self.directory is not None:
            document |= {"mode": self.mode.value, "directory": path_text(self.directory)}
        if self.wish is not None:
            document["wish"] = {
                "mode": self.wish.mode.value,
                "role": self.wish.role.value,
                "single": None if self.wish.single is None else path_text(self.wish.single),
                "all_below": self.wish.all_below,
                "remember": self.wish.remember,
            }
        return document

    @classmethod
    def parse(cls, document: Mapping[str, object]) -> Hello:
        """Return what a greeting says; `ProtocolError` if it is none."""
        fields = Fields(document)
        wish = fields.raw("wish")
        return cls(
            versions=_versions(fields),
            program=fields.text("program"),
            kernel=fields.text("kernel"),
            progs=fields.text("btrfs"),
            mode=None if fields.raw("mode") is None else _one_of(Mode, fields.text("mode")),
            directory=fields.raw_path("directory"),
            wish=None if wish is None else _wish(Fields(wish)),
        )


def _versions(fields: Fields) -> Versions:
    numbers = fields.numbers("versions", _MOST_VERSIONS)
    if len(numbers) == 2 and 0 < numbers[0] <= numbers[1]:
        return Versions(*numbers)
    raise ProtocolError("damaged message", why="it names no versions of the protocol")


def _wish(fields: Fields) -> Wish:
    return Wish(
        mode=_one_of(Mode, fields.text("mode")),
        role=_one_of(Role, fields.text("role")),
        single=None if fields.raw("single") is None else fields.path("single"),
        all_below=fields.flag("all_below"),
        remember=fields.flag("remember"),
    )


def _one_of(kind: type[_Choice], text: str) -> _Choice:
    try:
        return kind(text)
    except ValueError as error:
        raise ProtocolError("damaged message", why=f"there is no {text!r}") from error
