"""What a path in a stream leads to, while files are made and directories move."""

from __future__ import annotations

from buttersink.stream.names import FOLLOWED, Names
from tests.support.streams import (
    COMMAND_BYTES,
    Command,
    encode_command,
    link,
    mkdir,
    mkfile,
    rename,
    snapshot,
    subvol,
)

INCREMENTAL = snapshot(b"s", b"i" * 16, 2, b"p" * 16, 1)
FULL = subvol(b"s", b"i" * 16, 2)


def after(*commands: Command) -> Names:
    names = Names()
    for command in commands:
        if command.number in FOLLOWED:
            names.follow(command.number, encode_command(command)[COMMAND_BYTES:])
    return names


class TestWhatIsMade:
    def test_has_the_name_that_it_gets(self) -> None:
        names = after(INCREMENTAL, mkfile(b"o300-7-0", 300), rename(b"o300-7-0", b"a/f"))
        assert names.find(b"a/f") == 300

    def test_has_every_name_that_it_gets(self) -> None:
        made = mkfile(b"o300-7-0", 300), rename(b"o300-7-0", b"f")
        names = after(INCREMENTAL, *made, link(b"d/g", b"f"), link(b"h", b"d/g"))
        assert [names.find(path) for path in (b"f", b"d/g", b"h")] == [300] * 3

    def test_is_found_in_a_full_stream(self) -> None:
        names = after(
            FULL,
            mkdir(b"o257-7-0"),
            rename(b"o257-7-0", b"d"),
            mkfile(b"o258-7-0", 258),
            rename(b"o258-7-0", b"d/f"),
            mkfile(b"o259-7-0", 259),
        )
        assert names.find(b"o259-7-0") == 259

    def test_is_not_what_was_made_before(self) -> None:
        names = after(INCREMENTAL, mkfile(b"f", 300), mkfile(b"g", 301), rename(b"f", b"h"))
        assert names.find(b"g") == 301
        assert names.find(b"h") != 301


class TestWhatWasThere:
    def test_is_where_it_was(self) -> None:
        assert after(INCREMENTAL).find(b"a/b/f") == b"a/b/f"
        assert after(INCREMENTAL).find(b"f") == b"f"

    def test_was_elsewhere(self) -> None:
        assert after(INCREMENTAL, rename(b"a/f", b"b/g")).find(b"b/g") == b"a/f"

    def test_was_in_a_directory_that_has_moved(self) -> None:
        names = after(INCREMENTAL, rename(b"a", b"x/y"))
        assert names.find(b"x/y/b/f") == b"a/b/f"
        assert names.find(b"x/f") == b"x/f"

    def test_was_in_a_directory_in_one_that_has_moved_before_and_after(self) -> None:
        moves = rename(b"a", b"o260-7-0"), rename(b"o260-7-0/b", b"c"), rename(b"c", b"o260-7-0/d")
        names = after(INCREMENTAL, *moves, rename(b"o260-7-0", b"z"))
        assert names.find(b"z/d/f") == b"a/b/f"
        assert names.find(b"z/e/f") == b"a/e/f"

    def test_is_in_a_new_directory(self) -> None:
        names = after(
            INCREMENTAL,
            mkdir(b"o300-7-0"),
            rename(b"o300-7-0", b"new"),
            rename(b"a/f", b"new/f"),
            rename(b"b", b"new/b"),
        )
        assert names.find(b"new/f") == b"a/f"
        assert names.find(b"new/b/g") == b"b/g"
        assert names.find(b"new/nothing") is None

    def test_has_a_second_name(self) -> None:
        names = after(INCREMENTAL, link(b"d/g", b"a/f"), rename(b"a", b"b"))
        assert names.find(b"d/g") == names.find(b"b/f") == b"a/f"

    def test_gave_its_name_to_another(self) -> None:
        moves = rename(b"a", b"o260-7-0"), rename(b"b", b"a"), rename(b"o260-7-0", b"b")
        names = after(INCREMENTAL, *moves)
        assert (names.find(b"a/f"), names.find(b"b/f")) == (b"b/f", b"a/f")

    def test_is_told_between_moves(self) -> None:
        names = after(INCREMENTAL, rename(b"a", b"b"))
        assert names.find(b"b/f") == b"a/f"
        names.follow(9, encode_command(rename(b"b", b"c"))[COMMAND_BYTES:])
        assert names.find(b"c/f") == b"a/f"
