"""
Programs of Debian packages, unpacked into a directory of their own, so that nothing is installed.

apt works on lists, a state and a cache of its own, so that the machine's own packages are neither
asked nor touched; what packages would run on installation is not run, so no service is started and
no user made. A tree is made once and stays in a cache between runs. Making it takes root and the
network.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.loopfs import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CACHE = Path("/var/cache/buttersink-tests")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
ARCHIVE = "http://deb.debian.org/debian/"  # where the machine's own apt names no mirror


def unpacked(
    cache: Path,
    name: str,
    packages: Sequence[str],
    *,
    suite: str,
    finish: Callable[[Path], None] | None = None,
) -> Path:
    """
    Return `cache`/`name`, with the packages and all they depend on; others wait while it is made.

    `finish` adds what is not in the packages. The tree gets its name when it is whole, so that an
    interrupted one is made again.
    """
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.mkdir(mode=0o700, exist_ok=True)  # its setuid programs are for nobody on this machine
    tree, unfinished = cache / name, cache / f"{name}.unfinished"
    with _locked(cache / "lock"):
        if not tree.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
            _unpack(_download(cache / "apt", packages, suite), unfinished)
            if finish:
                finish(unfinished)
            unfinished.rename(tree)
            shutil.rmtree(cache / "apt")
    return tree


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Be the only process that works on the cache."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(directory: Path, packages: Sequence[str], suite: str) -> list[Path]:
    """Download the packages and all that they depend on; return the files."""
    archives = directory / "archives"
    for empty in (archives / "partial", directory / "lists/partial", directory / "state"):
        empty.mkdir(parents=True, exist_ok=True)
    (directory / "status").touch()  # no package is installed in the tree yet
    sources = directory / "sources.list"
    sources.write_text(f"deb [signed-by={KEYRING}] {_mirror()} {suite} main\n")
    settings = (
        f"Dir::State={directory}/state",
        f"Dir::State::lists={directory}/lists",
        f"Dir::State::status={directory}/status",
        f"Dir::Cache={directory}",
        f"Dir::Cache::archives={archives}",
        f"Dir::Etc::sourcelist={sources}",
        "Dir::Etc::sourceparts=-",
        "Dir::Etc::preferencesparts=-",
        "APT::Sandbox::User=root",
        "APT::Install-Recommends=false",
    )
    apt = ("apt-get", "-q", "-y", *(word for setting in settings for word in ("-o", setting)))
    run(*apt, "update")
    run(*apt, "install", "--download-only", *packages)
    return sorted(archives.glob("*.deb"))


def _mirror() -> str:
    """Return the mirror of Debian's archive that the machine's own apt uses."""
    known = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    return next((line for line in known.splitlines() if line.endswith("/debian/")), ARCHIVE)


def _unpack(packages: Sequence[Path], tree: Path) -> None:
    for name in ("bin", "sbin", "lib", "lib64"):  # packages still have files in both places
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    for package in packages:
        _unpack_package(package, tree)


def _unpack_package(package: Path, tree: Path) -> None:
    reading = ("dpkg", "--fsys-tarfile", os.fspath(package))
    with subprocess.Popen(reading, stdout=subprocess.PIPE) as reader:
        writing = ("tar", "-x", "--keep-directory-symlink", "-f", "-", "-C", os.fspath(tree))
        subprocess.run(writing, stdin=reader.stdout, check=True)
    if reader.returncode:
        raise subprocess.CalledProcessError(reader.returncode, reading)
