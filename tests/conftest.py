"""Fixtures: real btrfs file systems in files, gone at the end of each test whatever happens."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from hypothesis import HealthCheck, settings

from tests.support.loopfs import LoopFilesystem, loop_filesystem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(autouse=True, scope="session")
def _cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let no command that a test runs see what the user's own runs remember, or add to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path_factory.mktemp("cache")))
        yield


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
