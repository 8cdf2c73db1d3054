"""
Diffs that are worth measuring by rough sizes of far more than can be measured. No I/O here.

How much of a snapshot's data is newer than another one is quickly told, of all others at once, and
a diff from one that it grew out of has little else. How much data each of the two holds then tells
of the diff the other way: as much, and what the one made has more. So it shows where a line of
snapshots is better entered at its end, from something old, and made backwards: a diff from far and
all the ways back together are the least, and none of them is by itself.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from buttersink.planner.arborescence import minimum_arborescence
from buttersink.planner.candidates import descend
from buttersink.planner.lineage import NONE
from buttersink.planner.network import Network, lower_bound
from buttersink.planner.rehanging import Tree
from buttersink.planner.searching import growing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from buttersink.planner.candidates import Pair
    from buttersink.planner.costs import Weights
    from buttersink.planner.lineage import Ancestry

_FEWEST = 9  # snapshots to make; of fewer all pairs can be measured
_RATIO = 1.5  # between the distances, back along the lineage, of diffs that sizes are guessed of,
_DISTANCES = 13  # but so many of them at most, or little more: each plan looks at all
_GOOD, _MOSTLY = 0.1, 0.75  # part of its size by which a guess may be wrong; part of them that are
# Each time that it is looked what is cheapest, a measurement has to save this part of a usual diff:
# first what is sure to pay. With less to save many are measured that are as good as what is known.
_PARTS = (0.5, 0.1, 0.1, 0.05, 0.05, 0.02, 0.02)
_PRICED = 2  # the last of them, where chains have a price; to look at that takes much longer


class Guessing:
    """
    Have questions answered with `guess`, and sizes told with `learn`; ask `next` what to measure.

    A question is a diff of which it is to be told how much data is newer than its parent; of a full
    send that is all there is. Each is asked once.

    Args:
        made: The snapshots to make, as indices into an `Ancestry`.
        weights: What a plan makes least.

    Attributes:
        pays: Whether there are so many snapshots that sizes of all are worth a guess.
        served: Whether guesses were good, and have shown what else there is to measure.

    """

    def __init__(self, made: Collection[int], weights: Weights) -> None:
        self.pays = len(made) >= _FEWEST
        self.served = False
        self._made = sorted(made)
        self._asked: set[Pair] = set()
        self._whole = False
        self._data: dict[int, int] = {}
        self._newer: dict[Pair, int] = {}
        self._sizes: dict[Pair, int] = {}
        self._neighbours: list[Pair] = []
        self._weights = weights
        self._rounds = deque(_PARTS)

    def about(self, pairs: Iterable[Pair]) -> list[Pair]:
        """
        Return questions whose answers tell what diffs have at least; see `least`.

        Of those from a newer snapshot that tells only if the data of all is known; see `wholes`.
        """
        whole = self._data.keys()
        return self._unasked(
            (max(pair), min(pair)) for pair in pairs if pair[1] < pair[0] or whole >= {*pair}
        )

    def wholes(self, tree: Ancestry) -> list[Pair]:
        """Return questions about how much data there is in each snapshot, once."""
        new, self._whole = not self._whole, True
        return [(index, NONE) for index in range(len(tree.snapshots))] if new else []

    def about_all(self, tree: Ancestry) -> list[Pair]:
        """
        Return questions about all diffs between snapshots and what they grew out of.

        Of others it is not told what is older and still only on one branch, so the lineage has to
        be known as well as it can be.
        """
        self._neighbours = [
            (index, older)
            for index, older in enumerate(tree.before)
            if older != NONE and not tree.guessed[index]
        ]
        return self._unasked(_far(tree))

    def _unasked(self, questions: Iterable[Pair]) -> list[Pair]:
        new = [pair for pair in dict.fromkeys(questions) if pair not in self._asked]
        self._asked.update(new)
        return new

    def guess(self, pair: Pair, length: int) -> None:
        """Take bytes of data that answer one question."""
        to, parent = pair
        if parent == NONE:
            self._data[to] = length
        else:
            self._newer[pair] = length

    def learn(self, pair: Pair, length: int) -> None:
        """Take a size in bytes, whoever asked for it."""
        self._sizes[pair] = length

    def newer(self, pair: Pair) -> int | None:
        """Return how many bytes of data are newer than the parent, if that was told."""
        return self._newer.get(pair)

    def least(self, pair: Pair) -> int:
        """Return about how many bytes a diff has at least, as far as is known."""
        to, parent = pair
        if pair in self._newer:
            return self._newer[pair]
        there = self._newer.get((parent, to))
        return 0 if there is None else self._back(pair, there)

    def _back(self, pair: Pair, there: int) -> int:
        """Return about how long a diff is by the length of the one the other way."""
        to, parent = pair
        if to not in self._data or parent not in self._data:
            return 0
        return max(0, there + self._data[to] - self._data[parent])

    def next(self, room: int) -> list[Pair]:
        """
        Return what the cheapest plan by guesses has in it and is not measured yet, at most `room`.

        Each has to save a part of what a diff usually takes, and less from time to time; when that
        makes more than `room` of them, none of them is returned.
        """
        if not self._rounds or not self._are_good():
            return []
        self.served = True
        while self._rounds:
            priced = self._weights.keeps_diffs and len(self._rounds) <= _PRICED
            dearer = int(self._usual() * self._rounds.popleft())
            chosen = self._cheapest(self._guessed(dearer) | self._sizes, priced=priced)
            new = [pair for pair in chosen if pair not in self._sizes]
            if 0 < len(new) <= room:
                return new
        return []

    def _cheapest(self, sizes: Mapping[Pair, int], *, priced: bool) -> list[Pair]:
        """Return the cheapest choice of what makes all that can be made; `priced` with chains."""
        node = {index: place for place, index in enumerate(self._made, start=1)}
        arcs = [pair for pair in sizes if pair[0] in node]
        costs = [self._weights.sending(sizes[arc]) for arc in arcs]
        tails = [*(node.get(parent, 0) for _to, parent in arcs), *(0 for _ in node)]
        heads = [*(node[to] for to, _parent in arcs), *node.values()]
        costs += [sum(costs) + 1] * len(node)  # from nothing, dearer than all, if there is no way
        if priced:
            hop = self._weights.chaining(self._data[index] for index in node if index in self._data)
            rates, stored = [hop] * len(costs), [False] * len(costs)
            wanted = [False] + [True] * len(node)
            network = Network(len(wanted), tails, heads, costs, rates, stored, wanted)
            entering = Tree(network, lower_bound(network)[1]).descend().entering
        else:
            entering = minimum_arborescence(len(node) + 1, tails, heads, costs)
        return [arcs[arc] for arc in entering[1:] if arc < len(arcs)]

    def _usual(self) -> float:
        """Return what a diff takes on average, from what it is least by itself."""
        least: dict[int, int] = {}
        for (to, _parent), length in self._sizes.items():
            least[to] = min(length, least.get(to, length))
        return sum(least.values()) / max(1, len(least))

    def _are_good(self) -> bool:
        """Return whether guesses of neighbours that were measured are about right."""
        both = [pair for pair in self._neighbours if pair in self._newer and pair in self._sizes]
        good = sum(
            abs(self._newer[pair] - self._sizes[pair]) <= _GOOD * self._sizes[pair] for pair in both
        )
        return bool(both) and good >= _MOSTLY * len(both)

    def _guessed(self, dearer: int) -> dict[Pair, int]:
        """Return rough sizes and so much: of all that was told of something, and the other way."""
        guessed = {(index, NONE): length + dearer for index, length in self._data.items()}
        guessed |= {pair: length + dearer for pair, length in self._newer.items()}
        for (to, parent), length in (self._newer | self._sizes).items():
            if to in self._data and parent in self._data:
                guessed.setdefault((parent, to), self._back((parent, to), length) + dearer)
        return guessed


def _far(tree: Ancestry) -> Iterator[Pair]:
    """Yield diffs over growing distances; those of a snapshot follow each other."""
    ratio = max(_RATIO, max(tree.depths(), default=0) ** (1 / _DISTANCES))
    for index, ancestors in descend(tree):
        for distance in growing(len(ancestors), ratio):
            yield index, ancestors[-distance]
