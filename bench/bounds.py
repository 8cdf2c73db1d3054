"""
What no choice of diffs with short chains can be below: a proof beside which the planner is held.

A node at each depth is a node of its own, a diff leads from one depth to the next, and every
snapshot has to be reached at one depth. Wong's dual ascent bounds the cost of that from below: each
set of nodes that has to be entered and is not pays as much as all diffs into it still allow. What
diffs allow may first be given in part to sets of whole snapshots, which is better for some
histories; the best of several parts counts. Slow, and only for networks without rates.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

from buttersink.planner.network import parts, reached_nodes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from buttersink.planner.network import Network

    Numbers = NDArray[np.int64]

_QUARTERS = (0, 2, 3, 4)  # of what diffs allow, for the sets of whole snapshots
_PATIENCE = 1.1  # sets are taken by the number of diffs into them, but for this factor


def least_within(network: Network, limit: int) -> int:
    """Return what no tree can be below in which every chain has `limit` diffs or fewer."""
    return sum(_least(part, limit) for part, _, _ in parts(network, reached_nodes(network)))


def _least(network: Network, limit: int) -> int:
    tails, heads, costs = (
        np.array(numbers, dtype=np.int64)
        for numbers in (network.tails, network.heads, network.costs)
    )
    goals = [np.array([node]) for node in range(1, network.nodes)]
    allowed = costs - _ascend(tails, heads, costs, goals)[1]
    depths = np.arange(1, limit + 1)
    arc, depth = (axis.ravel() for axis in np.meshgrid(range(len(costs)), depths, indexing="ij"))
    exists = (tails[arc] == 0) == (depth == 1)
    arc, depth = arc[exists], depth[exists]
    from_ = np.where(tails[arc] == 0, 0, tails[arc] + (depth - 1) * network.nodes)
    onto = heads[arc] + depth * network.nodes
    copies = [node + depths * network.nodes for node in range(1, network.nodes)]
    best = 0
    for quarters in _QUARTERS:
        given = allowed * quarters // 4
        first, _ = _ascend(tails, heads, given, goals)
        then, _ = _ascend(from_, onto, (costs - given)[arc], copies)
        best = max(best, first + then)
    return best


def _ascend(
    tails: Numbers, heads: Numbers, costs: Numbers, goals: Sequence[Numbers]
) -> tuple[int, Numbers]:
    """Return a bound on reaching every goal from node 0, and what each arc has left."""
    order = np.argsort(heads, kind="stable")
    nodes = 1 + max(int(heads.max()), int(tails.max()))
    start = np.searchsorted(heads[order], np.arange(nodes + 1))
    left = costs.copy()
    bound = 0
    inside = [np.zeros(nodes, dtype=bool) for _ in goals]
    into = [np.concatenate([order[start[n] : start[n + 1]] for n in goal]) for goal in goals]
    for mask, goal in zip(inside, goals, strict=True):
        mask[goal] = True
    waiting = [(len(arcs), number) for number, arcs in enumerate(into)]
    heapq.heapify(waiting)
    while waiting:
        before, number = heapq.heappop(waiting)
        mask = inside[number]
        arcs = into[number]
        while True:
            arcs = arcs[~mask[tails[arcs]]]
            new = np.unique(tails[arcs[left[arcs] == 0]])
            if not len(new) or not new[0]:
                break
            mask[new] = True
            arcs = np.concatenate([arcs, *(order[start[n] : start[n + 1]] for n in new)])
        if len(new):
            continue
        into[number] = arcs
        if len(arcs) <= before or not waiting or len(arcs) <= waiting[0][0] * _PATIENCE:
            least = int(left[arcs].min())
            left[arcs] -= least
            bound += least
        heapq.heappush(waiting, (len(arcs), number))
    return bound, left
