"""
Run a program and write how long it took and how much memory it had at most, as JSON.

    python -I -S bench/timed.py RESULT PROGRAM [ARGUMENT ...]

This is a process of its own because the kernel counts, in a child's peak, what its parent held at
the moment it was started: the parent has to be smaller than what is measured. The peak of processes
that the program itself has waited for is included if it is higher. Only small modules are imported.
"""

import os
import sys
from time import perf_counter


def main() -> int:
    """Run the program; return its exit status."""
    result, *command = sys.argv[1:]
    started = perf_counter()
    process = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    seconds = perf_counter() - started
    with open(result, "w", encoding="ascii") as file:
        file.write(f'{{"seconds": {seconds!r}, "peak_bytes": {usage.ru_maxrss * 1024}}}')
    return os.waitstatus_to_exitcode(status) % 256


if __name__ == "__main__":
    sys.exit(main())
