"""
The command as it is called: what is refused, in one line, with which exit status.

It runs as a process of its own, so that nothing of the tests' interpreter helps it.
"""

from __future__ import annotations

import fcntl
import os
import pty
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.command import command_line
from tests.support.loopfs import create_subvolume, loop_filesystem, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Word = str | bytes | Path

NOBODY = 65534
NOT_BTRFS = "/proc"
OTHER_NOT_BTRFS = "/dev/shm"

BAD_USAGE: list[tuple[list[Word], str]] = [
    ([], "SRC DST"),
    (["-n"], "SRC DST"),
    (["/a/", "/b/", "/c/"], "more than two locations"),
    (["--no-such-option", "/a/"], "--no-such-option"),
    (["--dry-ru", "/a/"], "--dry-ru"),  # no abbreviations: a later option may begin alike
    (["-x", "/a/"], "-x"),
    (["--dry-run=yes", "/a/"], "--dry-run"),
    (["--exclude"], "--exclude"),
    (["--exclude", "(", "/a/"], "bad pattern: (: missing )"),
    (["--exclude", "fine", "--exclude", "*", "/a/"], "bad pattern: *: nothing to repeat"),
    (["--exclude", "[b-\n]", "/a/"], "bad pattern"),
    (["--part-size", "0", "/a/"], "--part-size"),
    (["--part-size", "-1", "/a/"], "--part-size"),
    (["--part-size", "1.5", "/a/"], "--part-size"),
    (["--part-size", "", "/a/"], "--part-size"),
    (["--part-size", "\u0665", "/a/"], "--part-size"),  # a digit, in Arabic
    ([""], "empty location"),
    (["/a/", ""], "empty location"),
    (["scp://host/prefix"], "scp:// is not one of those this version has"),
    (["/a/", "scp://bucket/prefix"], "scp:// is not one of those this version has"),
    (["ssh://host"], "bad ssh location: ssh://host: it names no directory"),
    (["/a/", "ssh://-oProxyCommand=id/dir/"], "bad ssh location"),
    (["--remote-command", "'", "ssh://host/dir/"], "bad --remote-command"),
    (["--delete", "/a/one", "/b/"], "--delete with a single snapshot: /a/one"),
    (["-nd", "/a/one", "/b/"], "--delete with a single snapshot: /a/one"),
    (["--verify", "deep", "/a/"], "invalid choice: 'deep' (choose from 'chains', 'checksums', 'fu"),
    (["--verify", "/a/"], "--verify: invalid choice: '/a/'"),
    (["--verify"], "--verify"),
    (["--verify", "full", "/a/", "/b/"], "--verify with two locations"),
    (["--verify", "full", "--delete", "/a/"], "--verify with --delete"),
    (["--logfile", "/proc/no/such/log", "/a/"], "cannot open the log file"),
    (["--logfile", "/proc", "/a/"], "cannot open the log file"),
    ([b"--no\nsuch\noption", "/a/"], "such"),
]
BAD_LOCATION: list[tuple[list[Word], str]] = [
    (["/proc/no/such"], "/proc/no/such: No such file or directory"),
    (["/proc/no/such/", "/proc/"], "/proc/no/such: No such file or directory"),
    ([b"/proc/new\nline \xff\xc3\xa9/"], "No such file or directory"),
    ([b"/" + b"n" * 300], "File name too long"),
    (["/proc/version"], "/proc/version: Not a directory"),
    ([NOT_BTRFS], "it is not on a btrfs file system"),
    ([f"{NOT_BTRFS}/"], "it is not on a btrfs file system"),
    ([f"{OTHER_NOT_BTRFS}/"], "it is not on a btrfs file system"),
    ([f"{OTHER_NOT_BTRFS}/", "/proc/"], "it is not on a btrfs file system"),
    (["-d", f"{OTHER_NOT_BTRFS}/", "/proc/"], "it is not on a btrfs file system"),
    (["--json", NOT_BTRFS], "it is not on a btrfs file system"),
    (["-qq", NOT_BTRFS], "it is not on a btrfs file system"),
    (["-v", NOT_BTRFS], "it is not on a btrfs file system"),
]


def buttersink(
    *words: Word, user: int | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command and return how it ended and what it wrote."""
    return subprocess.run(
        command_line(*words),
        check=False,
        capture_output=True,
        cwd="/",
        encoding="utf-8",
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})},
        extra_groups=None if user is None else [],
        group=user,
        stdin=subprocess.DEVNULL,
        user=user,
    )


def refusal(done: subprocess.CompletedProcess[str], status: int) -> str:
    """Return the text of the one line that is all that was written."""
    assert done.stdout == ""
    line = done.stderr.removesuffix("\n")
    assert line.startswith("buttersink: error: ")
    assert "internal error" not in line
    assert line.isprintable()
    assert done.returncode == status
    return line.removeprefix("buttersink: error: ")


class TestHelp:
    @pytest.mark.parametrize("option", ["-h", "--help"])
    def test_goes_to_stdout(self, option: str) -> None:
        done = buttersink(option)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("usage: buttersink [options] [SRC] DST\n")

    def test_names_every_exit_status(self) -> None:
        told = " ".join(buttersink("--help").stdout.split())
        assert "Exit status: 0 " in told
        assert all(f", {status} " in told for status in (1, 2, 3))

    @pytest.mark.parametrize("option", ["-V", "--version"])
    def test_version_goes_to_stdout(self, option: str) -> None:
        done = buttersink(option)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("buttersink ")


class TestRefusal:
    @pytest.mark.parametrize(("words", "text"), BAD_USAGE)
    def test_of_bad_usage_has_status_2(self, words: list[Word], text: str) -> None:
        assert text in refusal(buttersink(*words), 2)

    @pytest.mark.parametrize(("words", "text"), BAD_LOCATION)
    def test_of_a_bad_location_has_status_1(self, words: list[Word], text: str) -> None:
        assert text in refusal(buttersink(*words), 1)

    def test_says_what_to_do(self) -> None:
        assert refusal(buttersink(), 2).endswith(" See buttersink --help.")
        assert refusal(buttersink(NOT_BTRFS), 1).endswith(" Is the file system mounted?")

    def test_makes_no_directory_where_the_destination_is_no_btrfs(self) -> None:
        missing = Path(OTHER_NOT_BTRFS, f"buttersink-test-{os.getpid()}")
        refusal(buttersink("/proc/", missing), 1)
        assert not missing.exists()

    def test_of_usage_comes_before_anything_is_looked_at(self) -> None:
        assert "bad pattern" in refusal(buttersink("--exclude", "(", "/proc/no/such"), 2)

    def test_is_in_the_log_file_too(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        refusal(buttersink("--logfile", log, NOT_BTRFS), 1)
        refusal(buttersink("--logfile", log, NOT_BTRFS), 1)
        first, second = log.read_text("utf-8").splitlines()
        assert first.endswith("Is the file system mounted?")
        assert first.partition(" ")[2] == second.partition(" ")[2]

    def test_of_a_location_does_not_depend_on_a_log_file_on_a_full_disk(self) -> None:
        done = buttersink("--logfile", "/dev/full", NOT_BTRFS)
        note, line = done.stderr.splitlines()
        assert note.startswith("buttersink: note: the log file ends here")
        assert line.startswith("buttersink: error: cannot use the location: /proc")
        assert done.returncode == 1


class TestEnvironment:
    """Neither a locale nor a terminal changes what is refused, how, and with which status."""

    ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # noqa: RUF012

    @pytest.mark.parametrize("environment", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, ASCII])
    @pytest.mark.parametrize("word", [b"/proc/\xff\n", "/proc/grün 🧈".encode(), b"/proc/plain"])
    def test_of_the_c_locale_is_no_trouble(self, environment: dict[str, str], word: bytes) -> None:
        assert "No such file" in refusal(buttersink(word, environment=environment), 1)

    def test_of_the_c_locale_is_no_trouble_for_bad_options(self) -> None:
        refusal(buttersink("--grün-\udcff", "/a/", environment=self.ASCII), 2)

    @pytest.mark.parametrize(("words", "status"), [(["--bad"], 2), ([NOT_BTRFS], 1)])
    def test_of_a_terminal_changes_nothing(self, words: list[str], status: int) -> None:
        with _terminal() as (terminal, shown):
            code = _status(words, terminal)
            assert shown().replace("\r\n", "\n") == buttersink(*words).stderr
        assert code == status

    def test_of_a_full_disk_behind_stderr_changes_no_status(self) -> None:
        with open("/dev/full", "wb") as full:
            assert _status(["--bad"], full.fileno()) == 2

    def test_of_a_closed_stderr_changes_no_status(self) -> None:
        assert _status(["--bad"], None) == 2


@contextmanager
def _terminal() -> Iterator[tuple[int, Callable[[], str]]]:
    """Yield a terminal, and a function that returns what was written to it."""
    screen, terminal = pty.openpty()
    try:
        yield terminal, lambda: os.read(screen, 65536).decode()
    finally:
        os.close(screen)
        os.close(terminal)


def _status(words: list[str], stderr: int | None) -> int:
    """Return the exit status of a run that has this for stderr; with None it is closed."""
    closing = ["sh", "-c", '"$@" 2>&-', "sh"] if stderr is None else []
    command = [*closing, *command_line(*words)]
    return subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=stderr).returncode


@pytest.fixture(scope="module")
def top() -> Iterator[Path]:
    """A btrfs with a snapshot in `snapshots/one`, which every user may enter."""
    with tempfile.TemporaryDirectory(prefix="buttersink-usage-") as directory:
        os.chmod(directory, 0o755)
        with loop_filesystem(Path(directory)) as filesystem:
            live = create_subvolume(filesystem.mountpoint / "live")
            (filesystem.mountpoint / "snapshots").mkdir()
            snapshot(live, filesystem.mountpoint / "snapshots/one")
            yield filesystem.mountpoint


@pytest.mark.root
class TestWithoutRoot:
    """The line says that root is needed, and how."""

    def assert_refused(self, done: subprocess.CompletedProcess[str]) -> str:
        line = refusal(done, 1)
        assert line.endswith(". Run it as root, for example with sudo.")
        return line

    def test_listing_is_refused(self, top: Path) -> None:
        line = self.assert_refused(buttersink(f"{top}/snapshots/", user=NOBODY))
        assert f"{top}/snapshots/: Operation not permitted" in line

    def test_listing_one_is_refused(self, top: Path) -> None:
        self.assert_refused(buttersink(top / "snapshots/one", user=NOBODY))

    @pytest.mark.parametrize("options", [[], ["-n"], ["-d"], ["-n", "-d"], ["-e"], ["--json"]])
    def test_a_sync_is_refused(self, top: Path, options: list[str]) -> None:
        done = buttersink(*options, f"{top}/snapshots/", f"{top}/", user=NOBODY)
        self.assert_refused(done)

    def test_a_sync_to_a_new_directory_is_refused(self, top: Path) -> None:
        line = self.assert_refused(buttersink(f"{top}/snapshots/", f"{top}/new/", user=NOBODY))
        assert f"{top}/new: Permission denied" in line
        assert not (top / "new").exists()

    def test_what_may_not_be_entered_is_refused(self, top: Path) -> None:
        os.chmod(top / "snapshots", 0o700)
        try:
            line = self.assert_refused(buttersink(f"{top}/snapshots/", user=NOBODY))
        finally:
            os.chmod(top / "snapshots", 0o755)
        assert f"{top}/snapshots: Permission denied" in line


@pytest.mark.root
class TestWithRoot:
    def test_a_listing_succeeds(self, top: Path) -> None:
        done = buttersink(f"{top}/snapshots/")
        assert (done.returncode, done.stderr) == (0, "")
        assert "one" in done.stdout

    def test_a_listing_needs_no_stderr(self, top: Path) -> None:
        with open("/dev/full", "wb") as full:
            assert _status([f"{top}/snapshots/"], full.fileno()) == 0
        assert _status([f"{top}/snapshots/"], None) == 0

    def test_a_directory_is_no_single_snapshot(self, top: Path) -> None:
        line = refusal(buttersink(top / "snapshots", f"{top}/copy/"), 1)
        assert line.startswith(f"not a snapshot: {top}/snapshots: ")
        assert line.endswith("write it with a slash at its end.")

    def test_a_writable_subvolume_is_no_snapshot(self, top: Path) -> None:
        assert "not a snapshot" in refusal(buttersink(top / "live", f"{top}/copy/"), 1)

    def test_a_refused_source_makes_no_destination(self, top: Path) -> None:
        refusal(buttersink(top / "live", f"{top}/copy/"), 1)
        assert not (top / "copy").exists()

    def test_a_destination_that_another_run_writes_to_has_status_3(self, top: Path) -> None:
        lock = os.open(top, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = buttersink(f"{top}/snapshots/", f"{top}/")
        finally:
            os.close(lock)
        assert f"locked: {top}/: another run" in refusal(done, 3)

    @pytest.mark.parametrize("depth", ["chains", "checksums", "full"])
    def test_there_is_nothing_to_verify_in_a_directory_of_snapshots(
        self, top: Path, depth: str
    ) -> None:
        line = refusal(buttersink("--verify", depth, f"{top}/snapshots/"), 2)
        assert line.startswith(f"nothing to verify: {top}/snapshots/: it holds snapshots, not diff")
        assert "btrfs scrub" in line

    def test_delete_with_an_empty_source_is_refused(self, top: Path) -> None:
        (top / "empty").mkdir(exist_ok=True)
        line = refusal(buttersink("--delete", f"{top}/empty/", f"{top}/snapshots/"), 1)
        assert line.startswith("refusing to delete everything")
        assert (top / "snapshots/one").is_dir()

    def test_a_listing_to_a_full_disk_is_an_error_in_one_line(self, top: Path) -> None:
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                command_line(f"{top}/"),
                check=False,
                stdout=full,
                stderr=subprocess.PIPE,
                encoding="utf-8",
            )
        (line,) = done.stderr.splitlines()
        assert line.startswith("buttersink: error: ")
        assert "No space left on device" in line
        assert "bug" not in line
        assert done.returncode == 1
