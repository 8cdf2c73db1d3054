"""btrfs-progs of a version that does not take compressed data well, as far as a caller can tell."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SCRIPT = """\
#!/bin/sh
[ "$1" = --version ] && { echo "btrfs-progs v5.16.2"; exit 0; }
exec BTRFS "$@"
"""


def old_progs(directory: Path) -> dict[str, str]:
    """Make them in a directory, which is to be made; return the environment that has them."""
    directory.mkdir()
    real = shutil.which("btrfs")
    assert real
    script = directory / "btrfs"
    script.write_text(_SCRIPT.replace("BTRFS", real))
    script.chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}
