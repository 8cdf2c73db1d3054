"""
Ceph's programs, unpacked from Debian's packages into a directory of their own to be chrooted into.

They come from Debian's sid, whose Ceph is a current release; a chroot is what runs them on any
Debian. Nothing is installed: apt works on lists, a state and a cache of its own, so that the
machine's own packages are neither asked nor touched. The tree is made once and stays between runs,
in $BUTTERSINK_CEPH or /var/cache/buttersink-tests/ceph; remove that directory to have a newer Ceph.
Making it takes root, the network, 770 MB of disk, of which 590 stay, and about 20 seconds.
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
    from collections.abc import Iterator

TREE = "tree-1"  # a changed recipe takes the next number
PACKAGES = ("radosgw", "ceph-mon", "ceph-osd", "ceph-common", "base-files", "coreutils", "python3")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
ARCHIVE = "http://deb.debian.org/debian/"  # where the machine's own apt names no mirror
DATA = "data"  # the one directory in the tree that a cluster writes to; empty here


def cache_directory() -> Path:
    """Return where the tree is kept between runs."""
    return Path(os.environ.get("BUTTERSINK_CEPH") or "/var/cache/buttersink-tests/ceph")


def ceph_tree() -> Path:
    """
    Return the unpacked tree, which is made first if it is not there; others wait meanwhile.

    It gets its name when it is whole, so that an interrupted one is made again.
    """
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    tree, unfinished = cache / TREE, cache / f"{TREE}.unfinished"
    with _locked(cache / "lock"):
        if not tree.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
            _unpack(_download(cache / "apt"), unfinished)
            unfinished.rename(tree)
            shutil.rmtree(cache / "apt")
    return tree


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Be the only process that works on the cache."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(directory: Path) -> list[Path]:
    """Download the packages and all that they depend on; return the files."""
    archives = directory / "archives"
    for empty in (archives / "partial", directory / "lists/partial", directory / "state"):
        empty.mkdir(parents=True, exist_ok=True)
    (directory / "status").touch()  # no package is installed in the tree yet
    sources = directory / "sources.list"
    sources.write_text(f"deb [signed-by={KEYRING}] {_mirror()} sid main\n")
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
    run(*apt, "install", "--download-only", *PACKAGES)
    return sorted(archives.glob("*.deb"))


def _mirror() -> str:
    """Return the mirror of Debian's archive that the machine's own apt uses."""
    known = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    return next((line for line in known.splitlines() if line.endswith("/debian/")), ARCHIVE)


def _unpack(packages: list[Path], tree: Path) -> None:
    """Unpack without running what packages would run, and add what a chroot needs besides."""
    for name in ("bin", "sbin", "lib", "lib64"):  # packages still have files in both places
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    for package in packages:
        _unpack_package(package, tree)
    for name in (DATA, "dev", "etc", "run", "tmp", "proc"):
        (tree / name).mkdir(exist_ok=True)
    for name in ("null", "zero", "random", "urandom"):
        run("cp", "--archive", f"/dev/{name}", tree / "dev")
    for name in ("passwd", "group", "hosts"):
        shutil.copy(f"/etc/{name}", tree / "etc")


def _unpack_package(package: Path, tree: Path) -> None:
    reading = ("dpkg", "--fsys-tarfile", os.fspath(package))
    with subprocess.Popen(reading, stdout=subprocess.PIPE) as reader:
        writing = ("tar", "-x", "--keep-directory-symlink", "-f", "-", "-C", os.fspath(tree))
        subprocess.run(writing, stdin=reader.stdout, check=True)
    if reader.returncode:
        raise subprocess.CalledProcessError(reader.returncode, reading)
