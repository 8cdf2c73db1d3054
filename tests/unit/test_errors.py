"""What an error says, on one line, and the exit status it ends the command with."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buttersink import errors
from buttersink.errors import (
    ConflictError,
    ConnectionLostError,
    DeleteError,
    Error,
    LocationError,
    LockedError,
    NoSpaceError,
    PlanError,
    PrivilegeError,
    ProtocolError,
    ReceiveError,
    RefusedError,
    ResumeError,
    SendError,
    StreamError,
    UsageError,
    VerifyError,
    printable,
)

EXIT_CODES = {
    Error: 1,
    UsageError: 2,
    LockedError: 3,
    LocationError: 1,
    PrivilegeError: 1,
    ProtocolError: 1,
    ConnectionLostError: 1,
    ConflictError: 1,
    RefusedError: 1,
    PlanError: 1,
    SendError: 1,
    ReceiveError: 1,
    ResumeError: 1,
    NoSpaceError: 1,
    DeleteError: 1,
    StreamError: 1,
    VerifyError: 1,
}


class TestExitCode:
    @pytest.mark.parametrize(("kind", "code"), EXIT_CODES.items())
    def test_of_each_class(self, kind: type[Error], code: int) -> None:
        assert kind("what").exit_code == code

    def test_is_stated_here_for_every_class(self) -> None:
        classes = {each for _name, each in inspect.getmembers(errors, inspect.isclass)}
        assert {each for each in classes if issubclass(each, Error)} == EXIT_CODES.keys()


class TestText:
    @pytest.mark.parametrize(
        ("error", "text"),
        [
            (Error("it failed"), "it failed"),
            (Error("it failed", where=b"/mnt/a"), "it failed: /mnt/a"),
            (Error("it failed", why="no reason"), "it failed: no reason"),
            (Error("it failed", hint="Try again."), "it failed. Try again."),
            (
                Error("it failed", where="/mnt/a", why="no reason", hint="Try again."),
                "it failed: /mnt/a: no reason. Try again.",
            ),
            (Error("it failed", where=b"new\nline \xff"), r"it failed: new\nline \xff"),
            (Error("it failed", where=b""), "it failed"),
        ],
    )
    def test_has_the_parts_there_are(self, error: Error, text: str) -> None:
        assert str(error) == text

    def test_has_how_far_it_had_come(self) -> None:
        error = Error("it failed", where="/mnt/a", why="no reason", hint="Try again.")
        error.reached = "at 40 %"
        assert str(error) == "it failed at 40 %: /mnt/a: no reason. Try again."

    def test_leaves_the_parts_as_they_were_given(self) -> None:
        error = ReceiveError("what", where=b"\xff", why="why", hint="hint")
        assert (error.what, error.where, error.why, error.hint) == ("what", b"\xff", "why", "hint")


class TestKinds:
    def test_lack_of_rights_is_a_location_that_cannot_be_opened(self) -> None:
        assert issubclass(PrivilegeError, LocationError)

    def test_lack_of_space_is_a_diff_that_cannot_be_taken(self) -> None:
        assert issubclass(NoSpaceError, ReceiveError)


class TestPrintable:
    @pytest.mark.parametrize(
        ("path", "shown"),
        [
            (b"plain/path with space", "plain/path with space"),
            ("grün 🧈".encode(), "grün 🧈"),
            (b"new\nline\r\ttab", r"new\nline\r\ttab"),
            (b"\x1b[31mred\x07\x7f", r"\x1b[31mred\x07\x7f"),
            (b"\xff\xe9 \xc3", r"\xff\xe9 \xc3"),
            (b"back\\slash", "back\\slash"),
            ("line\u2028separator \u202e\ufeff", r"line\u2028separator \u202e\ufeff"),
            ("lone \ud800", r"lone \ud800"),
            ("already \udcff", r"already \xff"),
            (b"", ""),
        ],
    )
    def test_escapes_what_a_terminal_cannot_show(self, path: bytes | str, shown: str) -> None:
        assert printable(path) == shown

    @given(st.binary() | st.text(st.characters()))
    def test_is_one_printable_line_of_what_can_be_encoded(self, path: bytes | str) -> None:
        shown = printable(path)
        assert shown.isprintable()
        shown.encode()

    @given(st.text(st.characters(categories=["L", "N", "P", "S"])))
    def test_leaves_printable_text_alone(self, text: str) -> None:
        assert printable(text.encode()) == text
