"""Which part of a split each item goes to: deterministic, stratified, units whole.

What may not be parted is a *unit*: the items of one patient, case or slide, and always the copies
of one image. Units are laid out in a random order that the seed fixes, each to the part that lacks
most; among some such orders the one that meets strata and sizes best is taken. A few units are then
moved and swapped as long as that helps. Neither the order of the items in the data set nor the
platform matters.

Letters: P parts, C strata (classes of `Dataset.labels`), U units.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hemaml.core.dataset import Dataset
from hemaml.core.errors import DataError
from hemaml.core.seeding import derive_seed
from hemaml.core.types import Float64Array, Int64Array

MAX_ORDERS = 32
ORDER_BUDGET = 20_000
"""Orders are tried while units times orders stays below this, so that a split takes < 0.5 s."""
FEW_UNITS = 64
"""Up to so many are moved and swapped: with more, chance comes near enough to the best."""
Cost = tuple[int, float]
"""Strata that a part has nothing of, then the imbalance: less is better, the first comes first."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Items that stay together.

    Attributes:
        name: The first of its ids, which names the unit on every machine.
        items: Indices into the data set.
        counts: C numbers of items by stratum.
    """

    name: str
    items: tuple[int, ...]
    counts: Int64Array


def assign(
    dataset: Dataset,
    shares: Sequence[float],
    purpose: str,
    seed: int,
    *,
    grouped: bool,
    varied: bool = False,
) -> list[list[int]]:
    """Indices of the items of each part, in order of their ids; no part is empty.

    Args:
        dataset: What to split.
        shares: P shares of the parts, with sum 1.
        purpose: Keeps splits of one seed for different ends independent.
        seed: Fixes the order of the units.
        grouped: Whether groups are kept together; copies of an image always are.
        varied: Whether splits of many seeds must differ, as those do over which a mean is taken.
            With few groups the best one is nearly always the same, so it is not searched for then;
            but each part still has something of each stratum wherever that can be.

    Raises:
        DataError: There are fewer units than parts.
    """
    units = units_of(dataset, grouped=grouped)
    if len(units) < len(shares):
        kind = "groups or distinct images" if grouped and dataset.groups else "distinct images"
        raise DataError(
            f"a split into {len(shares)} parts needs at least {len(shares)} {kind}, but "
            f"{dataset.name!r} has {len(units)} ({len(dataset)} items). "
            "Ask for fewer folds, or use more data."
        )
    counts_UC, shares_P = np.stack([unit.counts for unit in units]), np.array(shares)
    deals = [
        _deal(counts_UC, shares_P, _order(units, seed, purpose, attempt))
        for attempt in range(max(1, min(MAX_ORDERS, ORDER_BUDGET // len(units))))
    ]
    best = min(deals, key=lambda part_U: _cost(counts_UC, shares_P, part_U))
    fewest = sum(max(0, len(shares) - num) for num in (counts_UC > 0).sum(axis=0))
    incomplete = _cost(counts_UC, shares_P, best)[0] > fewest
    if len(units) <= FEW_UNITS and grouped and dataset.groups and (incomplete or not varied):
        best = _improved(counts_UC, shares_P, best)
    parts: list[list[int]] = [[] for _ in shares]
    for unit, part in zip(units, best, strict=True):
        parts[part].extend(unit.items)
    return [sorted(part, key=lambda i: dataset.ids[i]) for part in parts]


def _deal(counts_UC: Int64Array, shares_P: Float64Array, order: Sequence[int]) -> Int64Array:
    """Part of each unit: in the given order, each goes where most is lacking of its strata.

    What a part lacks is counted against the units dealt so far, in its strata and in all: so parts
    fill evenly, large units spread over all parts, and a class of one item goes to the largest.
    """
    num_parts = len(shares_P)
    part_U = np.zeros(len(counts_UC), dtype=np.int64)
    lack_PC = np.zeros((num_parts, counts_UC.shape[1]))
    lack_P = np.zeros(num_parts)
    for u in order:
        counts_C = counts_UC[u]
        size = int(counts_C.sum())
        lack_PC += shares_P[:, None] * counts_C[None, :]
        lack_P += shares_P * size
        # Rounding makes parts with equal shares equal again, on every platform.
        wish_P = np.round(lack_PC @ (counts_C / size) + lack_P, 9)
        part = int(wish_P.argmax())
        part_U[u] = part
        lack_PC[part] -= counts_C
        lack_P[part] -= size
    for empty in np.setdiff1d(np.arange(num_parts), part_U):
        fullest = int(np.bincount(part_U, minlength=num_parts).argmax())
        part_U[next(u for u in order if part_U[u] == fullest)] = empty
    return part_U


def _order(units: Sequence[Unit], *seed: object) -> list[int]:
    """The units in random order."""
    key = {u: (derive_seed(*seed, unit.name), unit.name) for u, unit in enumerate(units)}
    return sorted(key, key=lambda u: key[u])


def _improved(counts_UC: Int64Array, shares_P: Float64Array, part_U: Int64Array) -> Int64Array:
    """Each time the best of all moves of a unit and swaps of two, until none helps."""
    cost = _cost(counts_UC, shares_P, part_U)
    while True:
        changed = list(_neighbours(part_U, len(shares_P)))
        costs = [_cost(counts_UC, shares_P, other_U) for other_U in changed]
        best = min(range(len(changed)), key=lambda i: costs[i], default=None)
        if best is None or costs[best] >= cost:
            return part_U
        part_U, cost = changed[best], costs[best]


def _neighbours(part_U: Int64Array, num_parts: int) -> Iterator[Int64Array]:
    """Assignments that differ in one unit, or in two that are swapped; none leaves a part empty."""
    sizes = np.bincount(part_U, minlength=num_parts)
    for u, part in enumerate(part_U):
        for other in set(range(num_parts)) - {part} if sizes[part] > 1 else ():
            moved = part_U.copy()
            moved[u] = other
            yield moved
        for v in range(u):
            if part_U[v] != part:
                swapped = part_U.copy()
                swapped[u], swapped[v] = part_U[v], part
                yield swapped


def _cost(counts_UC: Int64Array, shares_P: Float64Array, part_U: Int64Array) -> Cost:
    got_PC = np.stack([counts_UC[part_U == p].sum(axis=0) for p in range(len(shares_P))])
    return int((got_PC == 0).sum()), _imbalance(got_PC, shares_P)


def _imbalance(got_PC: Int64Array, shares_P: Float64Array) -> float:
    """Chi-square of the strata and the sizes of the parts against their shares."""
    got_PK = np.column_stack([got_PC, got_PC.sum(axis=1)])
    wanted_PK = shares_P[:, None] * got_PK.sum(axis=0)[None, :]
    return float(np.round(((got_PK - wanted_PK) ** 2 / wanted_PK).sum(), 9))


def imbalance_of(parts: Sequence[Dataset]) -> float:
    """What `assign` searches the least of, for parts whose sizes are taken as they are.

    That is the chi-square of their strata: 0 where each part has its share of each.
    """
    strata = sorted({label for part in parts for label in part.labels})
    counts = [[part.labels.count(label) for label in strata] or [len(part)] for part in parts]
    got_PC = np.array(counts)
    return _imbalance(got_PC, got_PC.sum(axis=1) / got_PC.sum())


def units_of(dataset: Dataset, *, grouped: bool) -> list[Unit]:
    """The units, sorted by name: items linked by a common group or equal images."""
    order = sorted(range(len(dataset)), key=lambda i: dataset.ids[i])
    parent = list(range(len(dataset)))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    contents = dataset.contents()
    first: dict[tuple[str, str], int] = {}
    for item in order:
        links = [("image", contents[item])]
        if grouped and dataset.groups:
            links.append(("group", dataset.groups[item]))
        for link in links:
            parent[root(item)] = root(first.setdefault(link, item))
    members = defaultdict(list)
    for item in order:
        members[root(item)].append(item)

    labels = dataset.labels or (0,) * len(dataset)
    strata = {label: index for index, label in enumerate(sorted(set(labels)))}
    units = []
    for items in members.values():
        counts = np.zeros(len(strata), dtype=np.int64)
        for item in items:
            counts[strata[labels[item]]] += 1
        units.append(Unit(dataset.ids[items[0]], tuple(items), counts))
    return sorted(units, key=lambda unit: unit.name)
