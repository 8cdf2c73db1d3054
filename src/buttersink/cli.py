"""
The `buttersink` command: argv to typed options, errors to exit statuses. Decides nothing else.

This is the one place that reads arguments and the environment and turns an error into a number:
0 all done, 1 something failed, 2 bad usage, 3 locked, 128+n ended by signal n.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import shlex
import signal
import sys
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from buttersink.console import Console
from buttersink.errors import Error, UsageError, printable
from buttersink.location import parse_location
from buttersink.planner import PlanOptions
from buttersink.remote.invocation import SERVER
from buttersink.stores import Cache, Mode, Remote, Role, Uploads, open_store
from buttersink.sync import Options, carry_out, list_store, plan_clean_up, prepare
from buttersink.verdict import Depth
from buttersink.version import program_version

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType
    from typing import TextIO

    from buttersink.location import AnyLocation
    from buttersink.report import Report

_MIB = 1024 * 1024
_COLLECTED_AFTER = 100_000  # objects more than before; by default it is 700

_DESCRIPTION = """\
Make the read-only btrfs snapshots in DST the same set as in SRC, sending as few bytes as can be.
With one location, list it."""

_EPILOG = """\
SRC and DST are directories of btrfs file systems, here or, as ssh://user@host/directory/, on
another host that has buttersink; or s3://bucket/prefix/, where differences are kept as they are
sent. SRC with a slash at its end is every snapshot below; without, it is that one snapshot. DST is
always a directory: a snapshot SRC/a/b becomes DST/a/b. Snapshots are known by their UUIDs, so one
that DST holds under another name is not sent again.

A directory needs root. Exit status: 0 all done, 1 something failed (what did not depend on it was
done), 2 bad usage, 3 another run is writing to DST, 128+n ended by signal n. On another host this
command runs as buttersink --server --mode r|a|w [--unconfined] DIR, and takes no other arguments.

Examples:
  buttersink /mnt/data/snapshots/                     list, with sizes
  buttersink -n /mnt/data/snapshots/ /mnt/backup/     show what would be sent, and from what
  buttersink /mnt/data/snapshots/ /mnt/backup/        send it
  buttersink /mnt/data/snapshots/monday /mnt/backup/  send one snapshot
  buttersink /mnt/data/snapshots/ s3://bucket/home/   upload it
  buttersink /mnt/data/snapshots/ ssh://host/backup/  send it to another host
  buttersink s3://bucket/home/monday /mnt/restore/    bring one snapshot back
"""


class _Arguments(argparse.Namespace):
    """What the parser yields, for the type checker."""

    locations: list[str]
    dry_run: bool
    delete: bool
    estimate: bool
    quiet: int
    verbose: int
    logfile: str | None
    part_size: int | None
    storage_class: str | None
    max_chain: int | None
    exclude: list[str]
    json: bool
    verify: str | None
    remote_command: str | None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint="See buttersink --help.")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_arguments: object, **_: object) -> None:
        sys.stdout.write(f"buttersink {program_version()}\n")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="buttersink",
        usage="%(prog)s [options] [SRC] DST",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("locations", nargs="+", metavar="SRC DST", help=argparse.SUPPRESS)
    add("-n", "--dry-run", action="store_true", help="show the plan and change nothing")
    add(
        "-d",
        "--delete",
        action="store_true",
        help="delete from DST, after everything has arrived, the read-only snapshots that SRC does "
        "not have, and what interrupted runs left; with one location only the latter",
    )
    add(
        "-e",
        "--estimate",
        action="store_true",
        help="guess sizes instead of measuring them by sends without data: quicker, and the plan "
        "may send more than it has to",
    )
    add("-q", "--quiet", action="count", default=0, help="no progress; twice: errors only")
    add(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="explain each choice; twice: for debugging, with tracebacks",
    )
    add("-l", "--logfile", metavar="FILE", help="append messages, with the time, to FILE")
    add(
        "--exclude",
        metavar="REGEX",
        action="append",
        default=[],
        help="leave alone, on both sides, snapshots whose path relative to the location matches "
        "(may be given more than once)",
    )
    add("--json", action="store_true", help="write one JSON document to standard output")
    add(
        "--part-size",
        metavar="MiB",
        type=_part_size,
        help="size of the parts in which a diff is sent to S3, 5 to 5120 (16 if not given); of no "
        "effect between directories",
    )
    add(
        "--storage-class",
        metavar="CLASS",
        help="S3 storage class of what is sent, such as STANDARD_IA",
    )
    add(
        "--max-chain",
        metavar="N",
        type=_positive,
        help="where DST keeps diffs, let no new one end a chain of more than N; of no effect "
        "between directories, where snapshots arrive whole",
    )
    add(
        "--verify",
        metavar="DEPTH",
        choices=[depth.value for depth in Depth],
        help="prove the one location, which has to be one that keeps diffs, instead of listing it. "
        "chains: diffs lead to every snapshot; checksums: and each is what was recorded of it; "
        "full: and every byte of it is as it was sent",
    )
    add(
        "--remote-command",
        metavar="WORDS",
        help="what starts buttersink on the host of an ssh:// location, instead of "
        "'sudo -n buttersink', or 'buttersink' where the user is root",
    )
    add("-V", "--version", action=_Version, nargs=0, help="show the version and leave")
    return parser


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"not a positive number: {text!r}")
    return int(text)


def _part_size(text: str) -> int:
    if not 5 <= (size := _positive(text)) <= 5120:  # S3 user guide, multipart upload limits
        raise argparse.ArgumentTypeError(f"not between 5 and 5120: {text!r}")
    return size


def _patterns(texts: Sequence[str]) -> tuple[re.Pattern[bytes], ...]:
    patterns = []
    for text in texts:
        try:
            patterns.append(re.compile(os.fsencode(text)))
        except re.error as error:
            raise UsageError("bad pattern", where=text, why=str(error)) from error
    return tuple(patterns)


def _locations(arguments: _Arguments) -> list[AnyLocation]:
    locations = [parse_location(os.fsencode(text)) for text in arguments.locations]
    if len(locations) > 2:
        raise UsageError("more than two locations", hint="See buttersink --help.")
    if len(locations) == 2 and arguments.delete and not locations[0].all_below:
        raise UsageError(
            "--delete with a single snapshot",
            where=str(locations[0]),
            why="it would delete every other snapshot at the destination",
            hint="For every snapshot below it, write it with a slash at its end.",
        )
    return locations


def _refuse_with_verify(arguments: _Arguments) -> None:
    """Refuse what makes no sense beside `--verify`."""
    if len(arguments.locations) == 2:
        raise UsageError("--verify with two locations", hint="Name only the one to verify.")
    if arguments.delete:
        raise UsageError(
            "--verify with --delete",
            why="what it finds is for you to judge",
            hint="Verify first; then run without --verify.",
        )


def _verify(location: AnyLocation, depth: Depth, arguments: _Arguments, console: Console) -> int:
    """Verify one location; 1 if anything is broken."""
    from buttersink.verifying import verify

    options = PlanOptions(exclude=_patterns(arguments.exclude))
    uploads, remote = _uploads(arguments, console), _remote(arguments, console)
    with open_store(location, Mode.READ, Role.LISTING, uploads=uploads, remote=remote) as store:
        verdict = verify(store, depth, options, console)
        console.verdict(str(location), verdict)
    return 0 if verdict.sound else 1


def _list(location: AnyLocation, arguments: _Arguments, options: Options, console: Console) -> int:
    """List one location; with --delete discard its partial transfers, too."""
    clean = arguments.delete and not arguments.dry_run
    mode, cache = Mode.WRITE if clean else Mode.READ, _cache(arguments, console)
    uploads, remote = _uploads(arguments, console), _remote(arguments, console)
    with open_store(location, mode, Role.LISTING, cache, uploads, remote=remote) as store:
        shown = not (arguments.delete and arguments.json)  # one document, and that tells of the run
        found = list_store(store, options if shown else replace(options, estimate=True), console)
        if shown:
            console.listing(str(location), found)
        if not arguments.delete:
            return 0
        plan = plan_clean_up(found)
        console.plan(str(location), str(location), plan, dry_run=arguments.dry_run)
        report = carry_out(plan, store, store, console) if clean else None
        return _end(report, console)


def _sync(
    source: AnyLocation,
    destination: AnyLocation,
    arguments: _Arguments,
    options: Options,
    console: Console,
) -> int:
    mode = Mode.WRITE if arguments.delete else Mode.APPEND
    mode = Mode.READ if arguments.dry_run else mode
    cache, uploads = _cache(arguments, console), _uploads(arguments, console)
    remote = _remote(arguments, console)
    with ExitStack() as stack:
        from_store = stack.enter_context(
            open_store(source, Mode.READ, Role.SOURCE, cache, uploads, remote=remote)
        )
        to_store = stack.enter_context(
            open_store(destination, mode, Role.DESTINATION, uploads=uploads, remote=remote)
        )
        plan = prepare(from_store, to_store, options, console)
        console.plan(str(source), str(destination), plan, dry_run=arguments.dry_run)
        report = None if arguments.dry_run else carry_out(plan, from_store, to_store, console)
        return _end(report, console)


def _cache(arguments: _Arguments, console: Console) -> Cache | None:
    directory = _cache_directory()
    if directory is None:
        return None
    return Cache(directory, writable=not arguments.dry_run, tell=console.debug)


def _cache_directory() -> bytes | None:
    """Return the user's cache directory, where the XDG base directory specification has it."""
    home = os.environb.get(b"XDG_CACHE_HOME", b"")
    if not os.path.isabs(home):
        home = os.path.join(os.environb.get(b"HOME", b""), b".cache")
    return os.path.join(home, b"buttersink") if os.path.isabs(home) else None


def _remote(arguments: _Arguments, console: Console) -> Remote:
    try:
        words = shlex.split(arguments.remote_command or "")
    except ValueError as error:
        where = arguments.remote_command
        raise UsageError("bad --remote-command", where=where, why=str(error)) from error
    return Remote(tuple(words), tell=console.debug)


def _uploads(arguments: _Arguments, console: Console) -> Uploads:
    usual = Uploads()
    return Uploads(
        part_bytes=arguments.part_size * _MIB if arguments.part_size else usual.part_bytes,
        storage_class=arguments.storage_class or usual.storage_class,
        tell=console.debug,
    )


def _end(report: Report | None, console: Console) -> int:
    console.report(report)
    return 0 if report is None or report.complete else 1


class _Terminated(BaseException):
    """SIGTERM or SIGHUP, raised where the program is so that everything is cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise _Terminated(number)


def _run(arguments: _Arguments, console: Console) -> int:
    options = Options(
        PlanOptions(
            delete=arguments.delete,
            exclude=_patterns(arguments.exclude),
            max_chain=arguments.max_chain,
        ),
        estimate=arguments.estimate,
    )
    locations = _locations(arguments)
    if arguments.verify:
        _refuse_with_verify(arguments)
        return _verify(locations[0], Depth(arguments.verify), arguments, console)
    if len(locations) == 1:
        return _list(locations[0], arguments, options, console)
    return _sync(locations[0], locations[1], arguments, options, console)


def _guarded(arguments: _Arguments, console: Console) -> int:
    """Run, and turn whatever ends it into an exit status; tracebacks are for debugging."""
    try:
        return _run(arguments, console)
    except Error as error:
        failure: Exception = error
        console.error(error)
    except BrokenPipeError:  # whoever reads our output has left
        return 128 + signal.SIGPIPE
    except OSError as error:  # stores translate theirs, so this is our own output
        failure = error
        console.error(Error("cannot write the result", why=error.strerror or str(error)))
    except Exception as error:  # noqa: BLE001  a bug is told like any error, and to be reported
        failure = error
        hint = "This is a bug in buttersink: please report it with what -vv shows."
        console.error(Error("internal error", why=f"{type(error).__name__}: {error}", hint=hint))
    finally:
        console.finished()
    if arguments.verbose > 1:
        import traceback

        traceback.print_exception(failure)
    return failure.exit_code if isinstance(failure, Error) else Error.exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, by default the process's; return its exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    words = sys.argv[1:] if argv is None else argv
    try:
        return _serve(words) if SERVER in words else _command(words)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except _Terminated as error:
        return 128 + error.number


def command(argv: Sequence[str] | None = None) -> NoReturn:
    """
    Be the command: run it, and end the process with its status.

    That is at once, as all is closed and told: the interpreter would take a while to end, and to a
    signal in it say that nobody handles it. The collector of cycles, which would look through all
    that the libraries define again and again, is let run seldom.
    """
    gc.set_threshold(_COLLECTED_AFTER)
    os._exit(main(argv))


def _command(words: Sequence[str]) -> int:
    with ExitStack() as stack:
        stdout, stderr = (
            stream or stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            for stream in (sys.stdout, sys.stderr)
        )
        stack.callback(_flush, stdout, stderr)
        try:
            arguments = _parser().parse_args(words, namespace=_Arguments())
            logfile = _open_logfile(arguments.logfile, stack)
        except UsageError as error:
            with suppress(OSError):  # nobody is left to be told
                stderr.write(f"buttersink: error: {printable(str(error))}\n")
                stderr.flush()
            return error.exit_code
        console = Console(
            stdout=stdout,
            stderr=stderr,
            quiet=arguments.quiet,
            verbose=arguments.verbose,
            as_json=arguments.json,
            logfile=logfile,
        )
        return _guarded(arguments, console)


def _serve(words: Sequence[str]) -> int:
    """Be the far side of an ssh location; what is asked for by other words is refused."""
    from buttersink.remote.command import run_server

    return run_server([os.fsencode(word) for word in words], os.environ, _cache_directory())


def _flush(*streams: TextIO) -> None:
    """Let go of what cannot be written, so that the interpreter does not try again at its end."""
    for stream in streams:
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _open_logfile(path: str | None, stack: ExitStack) -> TextIO | None:
    if path is None:
        return None
    try:
        logfile = open(path, "a", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError("cannot open the log file", where=path, why=why) from error
    stack.callback(_close, logfile)
    return logfile


def _close(logfile: TextIO) -> None:
    with suppress(OSError):  # the console has told that the log file ends
        logfile.close()
