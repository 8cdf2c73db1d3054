"""
Run a program and write how long it took, its processor time and peak memory, as JSON.

    python -I -S bench/timed.py RESULT PROGRAM [ARGUMENT ...] ['|' PROGRAM [ARGUMENT ...]] ...

This is a process of its own because the kernel counts, in a child's peak, what its parent held at
the moment it was started: the parent has to be smaller than what is measured. Processes that the
programs have waited for are included: their time is added, and their peak counts if it is higher.
Of several programs, each of which reads what the one before it writes, the times are added too, and
the peak is that of the highest. Only small modules are imported.
"""

import os
import sys
from time import perf_counter


def main() -> int:
    """Run the programs; return the first exit status that is not 0."""
    result, *words = sys.argv[1:]
    started = perf_counter()
    ends = [os.wait4(process, 0) for process in start(pipeline(words))]
    seconds = perf_counter() - started
    cpu = sum(usage.ru_utime + usage.ru_stime for _, _, usage in ends)
    peak = max(usage.ru_maxrss for _, _, usage in ends) * 1024
    with open(result, "w", encoding="ascii") as file:
        file.write(f'{{"seconds": {seconds!r}, "cpu_seconds": {cpu!r}, "peak_bytes": {peak}}}')
    return next((code % 256 for _, end, _ in ends if (code := os.waitstatus_to_exitcode(end))), 0)


def pipeline(words: list[str]) -> list[list[str]]:
    """Return the command lines between the bars."""
    commands: list[list[str]] = [[]]
    for word in words:
        if word == "|":
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


def start(commands: list[list[str]]) -> list[int]:
    """Start programs, each with the next one's input for its output; return their numbers."""
    processes = []
    source = -1
    for command in commands:
        read_end, write_end = (-1, -1) if command is commands[-1] else os.pipe()
        wanted = ((source, 0), (write_end, 1))
        actions = [(os.POSIX_SPAWN_DUP2, *each) for each in wanted if each[0] >= 0]
        processes.append(os.posix_spawnp(command[0], command, os.environ, file_actions=actions))
        for descriptor in (source, write_end):
            if descriptor >= 0:
                os.close(descriptor)
        source = read_end
    return processes


if __name__ == "__main__":
    sys.exit(main())
