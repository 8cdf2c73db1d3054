"""
What the small commands share: their options' form, and how whatever ends one becomes a status.

0 done, 1 something failed, 2 bad usage, 130 interrupted, 141 nobody reads the output: as with
`buttersink` itself. An `Error` is one line on stderr; what is no `Error` is a bug and stays a
traceback. Nothing here knows what a command does.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from buttersink.errors import Error
from buttersink.version import program_version

if TYPE_CHECKING:
    from collections.abc import Callable

_INTERRUPTED = 130
_PIPE_CLOSED = 141


class _Version(argparse.Action):
    """Prints the program's name and version and leaves; looks it up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        sys.stdout.write(f"{parser.prog} {program_version()}\n")
        parser.exit()


def make_parser(program: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Return a parser with --help, which shows `epilog` as it is, and --version."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action=_Version, nargs=0, help="print the version")
    return parser


def run(program: str, work: Callable[[], int]) -> int:
    """
    Do the work, which may write to stdout; return its exit status, or that of what ended it.

    An `OSError` that comes out of it is taken for one of stdout.
    """
    try:
        if sys.stdout is None:
            return complain(program, Error("cannot write the result", why="stdout is closed"))
        status = _status_of(work)
        sys.stdout.flush()
    except Error as error:
        return complain(program, error)
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except BrokenPipeError:
        status = _PIPE_CLOSED
    except OSError as error:
        status = complain(program, Error("cannot write the result", why=error.strerror or ""))
    else:
        return status
    _drop_output()
    return status


def _status_of(work: Callable[[], int]) -> int:
    try:
        return work()
    except SystemExit as ended:  # after help, version and bad usage
        return int(ended.code or 0)


def complain(program: str, error: Error) -> int:
    """Write one line about an error to stderr; return its exit status."""
    if sys.stderr is not None:
        with suppress(OSError):  # nobody is left to be told
            sys.stderr.write(f"{program}: error: {error}\n")
    return error.exit_code


def _drop_output() -> None:
    """Let what is still buffered go nowhere, lest the interpreter complain of it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
