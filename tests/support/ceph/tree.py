"""
Ceph's programs, unpacked from Debian's packages into a directory of their own to be chrooted into.

They come from Debian's sid, whose Ceph is a current release; a chroot is what runs them on any
Debian. The tree stays between runs, in $BUTTERSINK_CEPH or /var/cache/buttersink-tests/ceph; remove
that directory to have a newer Ceph. Making it takes 770 MB of disk, of which 590 stay, and about 20
seconds.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.support.debian import CACHE, unpacked
from tests.support.loopfs import run

TREE = "tree-1"  # a changed recipe takes the next number
PACKAGES = ("radosgw", "ceph-mon", "ceph-osd", "ceph-common", "base-files", "coreutils", "python3")
DATA = "data"  # the one directory in the tree that a cluster writes to; empty here


def cache_directory() -> Path:
    """Return where the tree is kept between runs."""
    return Path(os.environ.get("BUTTERSINK_CEPH") or CACHE / "ceph")


def ceph_tree() -> Path:
    """Return the unpacked tree, which is made first if it is not there; others wait meanwhile."""
    return unpacked(cache_directory(), TREE, PACKAGES, suite="sid", finish=_make_chroot)


def _make_chroot(tree: Path) -> None:
    """Add what a chroot needs besides the packages' files."""
    for name in (DATA, "dev", "etc", "run", "tmp", "proc"):
        (tree / name).mkdir(exist_ok=True)
    for name in ("null", "zero", "random", "urandom"):
        run("cp", "--archive", f"/dev/{name}", tree / "dev")
    for name in ("passwd", "group", "hosts"):
        shutil.copy(f"/etc/{name}", tree / "etc")
