"""What is said to take longer than what."""

from __future__ import annotations

from buttersink.catalogue import Diff, Measurement, Uuid
from buttersink.planner import timing

SMALL = Measurement(Diff(Uuid(b"s" * 16), None), 10**6, 100, extents=10)
LONG = SMALL._replace(commands=1000, extents=900)


def test_measuring_takes_longer_with_commands_extents_and_sharing() -> None:
    seconds = [
        timing.measuring(SMALL, 1),
        timing.measuring(SMALL._replace(commands=200), 1),
        timing.measuring(LONG, 1),
        timing.measuring(LONG._replace(own_clones=100), 1),
        timing.measuring(LONG, 100),
    ]
    assert seconds == sorted(set(seconds))


def test_sending_takes_longer_than_measuring() -> None:
    for found in (SMALL, LONG):
        for sharing in (1, 1000):
            assert timing.measuring(found, sharing) < timing.sending(found, sharing)


def test_looking_takes_longer_with_snapshots_and_what_each_has_added() -> None:
    added = LONG._replace(diff=Diff(Uuid(b"t" * 16), SMALL.diff.to))
    looking = [timing.looking(LONG, 1), timing.looking(LONG, 10)]
    assert looking == sorted(set(looking))
    assert looking[0] < timing.measuring(LONG, 1)
    assert 0 < timing.looking(added, 10) < looking[1]


def test_sending_takes_longer_with_bytes() -> None:
    assert timing.sending(SMALL._replace(bytes=10**9), 1) > timing.sending(SMALL, 1) + 1
