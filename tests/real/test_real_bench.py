"""The thinned histories that plans are judged on, and the judgement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.allpairs import AllPairs
from bench.real import Case, measure_case
from bench.realhistory import KINDS, Kind, make, survivors
from buttersink.location import S3Location
from tests.support.history import make_history
from tests.support.loopfs import MIB, show_subvolume

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.history import Tree
    from tests.support.s3servers import Bucket

pytestmark = pytest.mark.root


def _fill(tree: Tree, size: int) -> None:
    tree.write(tree.path(b"file"), size)


def _change(tree: Tree, size: int, _number: int) -> None:
    tree.write(tree.path(b"file"), size, mode="ab")


TINY = Kind(MIB, 4096, _fill, _change)


def test_thinning_leaves_the_recent_then_every_7th_then_every_30th() -> None:
    left = survivors(200)
    assert len(left) == 200
    assert left[-125:] == list(range(left[-1] - 124, left[-1] + 1))
    weekly = [number for number in left[:-125] if number > left[-1] - 475]
    assert all(number % 7 == 0 or number % 30 == 0 for number in weekly)
    assert all(number % 30 == 0 for number in left if number <= left[-1] - 475)


def test_a_thinned_history_has_its_snapshots_and_two_rollbacks(source: Path) -> None:
    directory = make(source, TINY, 12, 1)
    taken = sorted(directory.iterdir())
    assert [int(path.name) for path in taken] == survivors(12)
    shown = [show_subvolume(path) for path in taken]
    assert all(each.read_only for each in shown)
    assert len({each.parent_uuid for each in shown}) == 3  # the writable one of each branch


def test_the_same_seed_makes_the_same_content(source: Path) -> None:
    contents = []
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        (source / name).mkdir()
        last = max(make(source / name, TINY, 12, seed).iterdir())
        contents.append((last / "file").read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_no_diff_is_shorter_than_its_bound(source: Path) -> None:
    pairs = AllPairs(make_history(source, count=6).directory)
    bounds = {diff: found.bytes for diff, found in pairs.sizes.items()}
    assert len(bounds) == 6 * 6
    pairs.cheapest(lambda sizes: (0, [*sizes]), 1)  # which takes measuring all
    lengths = {diff: found.bytes for diff, found in pairs.sizes.items()}
    assert all(found.exact for found in pairs.sizes.values())
    assert all(bounds[diff] <= length for diff, length in lengths.items())
    assert all(bounds[diff] > 0.9 * length for diff, length in lengths.items() if not diff.parent)


def test_no_plan_is_judged_better_than_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: Bucket
) -> None:
    monkeypatch.setitem(KINDS, "tiny", TINY)
    for name, value in s3.server.environment().items():
        monkeypatch.setenv(name, value)
    case, empty = Case("tiny", 8, 3), S3Location(s3.name, "", all_below=True)
    result = measure_case(case, tmp_path, 1, empty)
    assert result.least_bytes <= result.directory.bytes <= result.least_bytes * 1.01
    assert result.least_bytes <= result.bucket.bytes == result.chosen.sent_bytes
    assert result.best.bound <= result.best.price <= result.chosen.price
    assert 8 <= result.directory.measured <= 8 * 8
    again = measure_case(case, tmp_path, 1, empty)  # finds the history and the sizes
    assert (again.least_bytes, again.best) == (result.least_bytes, result.best)
