"""One choice for each item so that the sum of costs is least and the sum of sizes within a limit.

The multiple-choice knapsack problem, by dynamic programming over sizes (Kellerer, Pferschy, Pisinger
2004, Knapsack Problems, section 11.5). Knows numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_STEPS = 1 << 16  # of size, at most; the sizes of some hundred items are rounded up to them


def choose(
    costs: Sequence[Sequence[float]], sizes: Sequence[Sequence[int]], limit: int
) -> list[int] | None:
    """The number of the option to take of each item; None if even the smallest do not fit.

    The best choice there is where sizes over their greatest common divisor are small; else sizes are
    rounded up to 1/65536 of the limit, and what that leaves is spent on the items one by one.

    Args:
        costs: of each item's options, at least 0.
        sizes: of the same options, at least 0.
        limit: largest sum of sizes.
    """
    if sum(min(own) for own in sizes) > limit:
        return None
    least = [min(own) for own in sizes]
    extra = [[size - low for size in own] for own, low in zip(sizes, least, strict=True)]
    room = limit - sum(least)
    unit = max(math.gcd(*(size for own in extra for size in own)), -(-room // _STEPS), 1)
    steps = [[-(-size // unit) for size in own] for own in extra]
    chosen = _best(costs, steps, room // unit)
    return _filled(costs, extra, room, chosen)


def _best(costs: Sequence[Sequence[float]], steps: Sequence[Sequence[int]], room: int) -> list[int]:
    """By steps of size: `best[s]` is the least cost of the items so far in at most s steps."""
    best = np.zeros(room + 1)
    taken = []
    for own_costs, own_steps in zip(costs, steps, strict=True):
        found = np.full(room + 1, np.inf)
        option = np.zeros(room + 1, np.int16)
        for number, (cost, step) in enumerate(zip(own_costs, own_steps, strict=True)):
            if step > room:
                continue
            there = found[step:]
            total = best[: room + 1 - step] + cost
            better = total < there
            there[better] = total[better]
            option[step:][better] = number
        best = found
        taken.append(option)
    left, chosen = room, []
    for option, own_steps in zip(reversed(taken), reversed(steps), strict=True):
        number = int(option[left])
        chosen.append(number)
        left -= own_steps[number]
    return chosen[::-1]


def _filled(
    costs: Sequence[Sequence[float]],
    sizes: Sequence[Sequence[int]],
    limit: int,
    chosen: list[int],
) -> list[int]:
    """Spend what is left of the limit where it lowers the cost most for its size."""
    chosen = list(chosen)
    while True:
        room = limit - sum(own[number] for own, number in zip(sizes, chosen, strict=True))
        gains = [
            ((costs[item][now] - cost) / max(size - sizes[item][now], 1), item, number)
            for item, now in enumerate(chosen)
            for number, (cost, size) in enumerate(zip(costs[item], sizes[item], strict=True))
            if cost < costs[item][now] and size - sizes[item][now] <= room
        ]
        if not gains:
            return chosen
        _, item, number = max(gains)
        chosen[item] = number
