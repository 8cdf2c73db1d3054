"""
An `ssh` that leads to this machine: it hands the remote command to a shell here, as sshd would.

For what has to be fast or has to fail in a certain way; tests/support/sshd.py has the real one.
The far side is told nothing of how this side was started, and `buttersink` there is this checkout.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCRIPT = """\
#!/bin/sh
# [option [value]]... -- host command, or -G
for word; do [ "$word" = -G ] && { echo "user USER"; exit 0; }; done
while [ "$1" != -- ]; do shift; done
BEFORE
unset SUDO_UID SUDO_USER SSH_ORIGINAL_COMMAND
export SSH_CONNECTION='127.0.0.1 40000 127.0.0.1 22'
export PYTHONPATH=CHECKOUT/src:CHECKOUT
exec env SETTINGS sh -c "$3"
"""


def fake_ssh(
    directory: Path,
    *,
    user: str = "root",
    before: str = "",
    settings: Mapping[str, str] | None = None,
    program: str | None = None,
) -> dict[str, str]:
    """
    Make it in a directory; return the environment in which it is found.

    Args:
        directory: Which is to be made.
        user: Who ssh says that it logs in as.
        before: Lines for a shell to run before the remote command.
        settings: What the far side has in its environment.
        program: What `buttersink` runs there: a shell's words.

    """
    directory.mkdir(exist_ok=True)
    checkout = os.fspath(Path(__file__).parents[2])
    words = " ".join(f"{name}={value}" for name, value in (settings or {}).items())
    script = _SCRIPT.replace("USER", user, 1).replace("BEFORE", before).replace("SETTINGS", words)
    script = script.replace("CHECKOUT", checkout)
    _executable(directory / "ssh", script)
    there = program or f"{sys.executable} -m buttersink"
    _executable(directory / "buttersink", f'#!/bin/sh\nexec {there} "$@"\n')
    _executable(
        directory / "sudo",
        '#!/bin/sh\nshift\nunset SSH_CONNECTION\nSUDO_UID=1000 SUDO_USER=guest exec "$@"\n',
    )
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


def _executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
