"""Fixtures: real btrfs file systems in files, gone at the end of each test whatever happens."""

from __future__ import annotations

import gc
import os
import uuid
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import botocore.session
import pytest
from botocore.loaders import create_loader
from hypothesis import HealthCheck, settings

from buttersink.kernel import libc
from tests.support import s3servers
from tests.support.loopfs import LoopFilesystem, loop_filesystem, run
from tests.support.serving import HOST
from tests.support.sshd import started_sshd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.s3servers import Bucket, Server
    from tests.support.sshd import StartedSshd

settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


S3_SERVERS = ("moto", "rclone")  # which need no root and nothing but pip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--s3", choices=["ceph"], help="test on this S3 server, too; needs root")
    parser.addoption(
        "--soak", action="store_true", help="ten times as many faults, others each time"
    )
    parser.addoption(
        "--fault-seed",
        metavar="SEED[:NUMBER]",
        help="repeat the faults of a seed, or a single one of them",
    )


def pytest_configure(config: pytest.Config) -> None:
    """
    Give each process that runs a part of the tests mounts of its own, where it may have them.

    The collector of cycles runs seldom, as in the command: it took an eighth of the time of tests.
    """
    gc.set_threshold(100_000)
    if hasattr(config, "workerinput") and os.geteuid() == 0:
        libc.enter_private_mounts()
        run("mount", "--make-rprivate", "/")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests have recorded as `shown`, also those of other processes."""
    for report in (
        r for outcome in ("passed", "failed") for r in terminalreporter.getreports(outcome)
    ):
        for name, text in report.user_properties:
            if name == "shown":
                terminalreporter.write_line(f"\n{text}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses an S3 server on every one, and what mostly waits on one of them."""
    if "s3_server" in metafunc.fixturenames:
        waits = metafunc.definition.get_closest_marker("waits") is not None
        servers: list[object] = [*(S3_SERVERS[-1:] if waits else S3_SERVERS)]
        if more := metafunc.config.getoption("--s3"):
            servers.append(pytest.param(more, marks=pytest.mark.root))
        metafunc.parametrize("s3_server", servers, indirect=True)


@pytest.fixture(autouse=True, scope="session")
def _cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let no command that a test runs see what the user's own runs remember, or add to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_account() -> Iterator[None]:
    """Let no test meet an account or a proxy that the user's environment names."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, HOST)
        yield


@pytest.fixture(autouse=True, scope="session")
def _api_read_once() -> Iterator[None]:
    """Let botocore read its description of the API once: each client took 0.1 s for that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", cache(create_loader))
        yield


class StartedServer(Protocol):
    """Returns the S3 server of this name, which runs from its first use to the session's end."""

    def __call__(self, name: str) -> Server:
        """Start it if it does not run yet."""


@pytest.fixture(scope="session")
def s3_servers(
    tmp_path_factory: pytest.TempPathFactory, _no_account: None
) -> Iterator[StartedServer]:
    with ExitStack() as stack:

        @cache
        def started(name: str) -> Server:
            directory = tmp_path_factory.mktemp(name)
            return stack.enter_context(s3servers.START[name](directory))

        yield started


@pytest.fixture
def s3_server(request: pytest.FixtureRequest, s3_servers: StartedServer) -> Server:
    return s3_servers(request.param)


@pytest.fixture
def s3(s3_server: Server) -> Iterator[Bucket]:
    """A bucket for this test alone, on each of the servers in turn."""
    bucket = s3_server.bucket(f"test-{uuid.uuid4().hex}")
    yield bucket
    bucket.remove()


class MakeFilesystem(Protocol):
    """Makes a mounted btrfs of this name."""

    def __call__(self, label: str, **options: Any) -> LoopFilesystem:  # noqa: ANN401
        """Return it; it goes with the test."""


@pytest.fixture
def make_filesystem(tmp_path: Path) -> Iterator[MakeFilesystem]:
    with ExitStack() as stack:

        def make(label: str, **options: Any) -> LoopFilesystem:  # noqa: ANN401
            return stack.enter_context(loop_filesystem(tmp_path, label=label, **options))

        yield make


@pytest.fixture
def source(make_filesystem: MakeFilesystem) -> Path:
    return make_filesystem("source").mountpoint


@pytest.fixture
def destination(make_filesystem: MakeFilesystem) -> Path:
    return make_filesystem("destination").mountpoint


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartedSshd]:
    """Another host on 127.0.0.1, reached by its client's `ssh` as `testhost`; needs root."""
    with started_sshd(tmp_path_factory.mktemp("sshd")) as started:
        yield started


@pytest.fixture(scope="session")
def _distant_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartedSshd]:
    with started_sshd(tmp_path_factory.mktemp("distant"), with_line=True) as started:
        yield started


@pytest.fixture
def distant_sshd(_distant_sshd: StartedSshd) -> Iterator[StartedSshd]:
    """Another host behind a line that tests can slow down and cut; perfect when a test begins."""
    yield _distant_sshd
    assert _distant_sshd.line
    _distant_sshd.line.mend()
    _distant_sshd.line.set_quality()
    _distant_sshd.end_sessions()  # whom a cut has left alone
