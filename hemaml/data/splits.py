"""Deterministic, stratified, grouped splits, shared by all tasks.

Official parts are used as they come: a part `test` is the held-out part and in nothing else, the
others are the folds of `folds: official`.

What may not be parted is a *unit*: the items of one patient, case or slide, and always the copies
of one image. Units are laid out in a random order that the seed fixes, each to the part that lacks
most; among some such orders the one that meets sizes and strata best is taken. Neither the order
of the items in the data set nor the platform matters.

Letters: F folds, P parts, C strata (classes of `Dataset.labels`), U units.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from hemaml.core.dataset import Dataset
from hemaml.core.errors import ConfigError, DataError
from hemaml.core.seeding import derive_seed
from hemaml.core.task import Fold, Outer
from hemaml.core.types import Float64Array, Int64Array

if TYPE_CHECKING:
    from hemaml.core.experiment import Split

SplitKind = Literal["official", "grouped", "images", "leaky"]
KIND_IN_WORDS: dict[SplitKind, str] = {
    "official": "The data set's own parts; groups are whole.",
    "grouped": "Groups (patients, cases or slides) are whole.",
    "images": "Split by image: the data set names no groups.",
    "leaky": "LEAKY: items of one group lie in several parts, so the scores are too good.",
}
TEST = "test"
"""The official part that is held out."""
DEFAULT_OUTER, OUTER_VAL = 5, 0.1
MAX_ORDERS = 32
ORDER_BUDGET = 20_000
"""Orders are tried while units times orders stays below this, so that a split takes < 0.5 s."""


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


def held_out(dataset: Dataset, *, seed: int, fraction: float = 0.15) -> tuple[Dataset, Dataset]:
    """The data set without the held-out part, and the held-out part.

    That is the official part `test` where there is one, else a share: grouped, stratified.

    Raises:
        DataError: There are fewer than two units, or the official parts share a group or an image.
    """
    if TEST in dataset.parts:
        _check_parts(dataset, ["rest" if part != TEST else TEST for part in dataset.parts])
        return _without_test(dataset), _part(dataset, TEST)
    rest, held = _split(dataset, [1 - fraction, fraction], "held-out", seed, grouped=True)
    return dataset.subset(rest), dataset.subset(held)


def folds(dataset: Dataset, split: "Split") -> tuple[Fold, ...]:
    """The folds that a sweep sees: one of train and validation, or `split.folds` for k-fold.

    Raises:
        DataError: There are fewer units than parts, or the official folds cannot be used.
    """
    grouped = split.group == "auto"
    if split.folds == "official":
        return tuple(Fold(rest, fold) for rest, fold in _official(dataset, grouped=grouped))
    if split.folds == 1:
        parts = _split(dataset, [1 - split.val, split.val], "val", split.seed, grouped=grouped)
        return (Fold(dataset.subset(parts[0]), dataset.subset(parts[1])),)
    shares = [1 / split.folds] * split.folds
    parts = _split(dataset, shares, "folds", split.seed, grouped=grouped)
    return tuple(
        Fold(
            train=dataset.subset(sorted(i for part in parts if part is not val for i in part)),
            val=dataset.subset(val),
        )
        for val in parts
    )


def outer(dataset: Dataset, split: "Split", num: int | None, seed: int) -> Iterator[Outer]:
    """The outer splits of a paper's protocol; an official part `test` is in none of them.

    Random ones, stratified and grouped as `split.group` says, have `split.test` in the test part,
    10 % in the validation part and the rest to train. With `folds: official` each official fold is
    the test part once, and `split.val` of the others is the validation part.

    Args:
        dataset: The whole data set.
        split: How to divide it.
        num: Number of splits, default 5 random ones; there are as many as official folds.
        seed: Of the random splits, and of the validation parts.

    Raises:
        ConfigError: `num` is not the number of official folds.
        DataError: There are fewer than three units, or the official folds cannot be used.
    """
    grouped = split.group == "auto"
    dataset = _without_test(dataset)
    if split.folds == "official":
        yield from _official_outer(dataset, split, num, seed)
        return
    shares = [round(1 - OUTER_VAL - split.test, 9), OUTER_VAL, split.test]
    for index in range(DEFAULT_OUTER if num is None else num):
        train, val, test = _split(dataset, shares, f"outer-{index}", seed, grouped=grouped)
        yield _outer(dataset.subset(train), dataset.subset(val), dataset.subset(test))


def _outer(train: Dataset, val: Dataset, test: Dataset) -> Outer:
    """Transductive protocols may see the images of the test part, never its labels."""
    return Outer(Fold(train, val, unlabelled=test.images), test)


def _official_outer(
    dataset: Dataset, split: "Split", num: int | None, seed: int
) -> Iterator[Outer]:
    grouped = split.group == "auto"
    found = _official(dataset, grouped=grouped)
    if num not in (None, len(found)):
        raise ConfigError(
            f"with `folds: official` there are as many outer splits as official folds, but "
            f"{dataset.name!r} has {len(found)} and `splits` is {num}. Leave `splits` out."
        )
    for rest, test in found:
        purpose = f"official-{test.parts[0]}"
        train, val = _split(rest, [1 - split.val, split.val], purpose, seed, grouped=grouped)
        yield _outer(rest.subset(train), rest.subset(val), test)


def _official(dataset: Dataset, *, grouped: bool) -> list[tuple[Dataset, Dataset]]:
    """For each official fold, in order of their names, all other folds and itself."""
    dataset = _without_test(dataset)
    names = sorted(set(dataset.parts))
    if len(names) < 2:
        raise DataError(
            f"`folds: official` needs a data set with two official folds or more, but "
            f"{dataset.name!r} has {', '.join(names) or 'none'}. Use `folds: 3`, or a reader that "
            "knows the folds."
        )
    if grouped:
        _check_parts(dataset, dataset.parts)
    return [(_part(dataset, *(n for n in names if n != own)), _part(dataset, own)) for own in names]


def _part(dataset: Dataset, *names: str) -> Dataset:
    return dataset.subset([i for i, part in enumerate(dataset.parts) if part in names])


def _without_test(dataset: Dataset) -> Dataset:
    return _part(dataset, *set(dataset.parts) - {TEST}) if TEST in dataset.parts else dataset


def _check_parts(dataset: Dataset, parts: Sequence[str]) -> None:
    """Raises `DataError` where items of one group, or copies of one image, are in two parts."""
    action = "Correct the parts, or ask for grouped random folds (`folds: 3`)."
    parted = _in_several(dataset.groups, parts)
    if parted:
        raise DataError(
            f"a group must lie in one official part, but of {dataset.name!r} these lie in several: "
            f"{_listed(sorted(parted))}. {action}"
        )
    contents = dataset.contents()
    copies = _in_several(contents, parts)
    if copies:
        named = [name for name, c in zip(dataset.ids, contents, strict=True) if c in copies]
        raise DataError(
            f"copies of an image must lie in one official part, but of {dataset.name!r} these lie "
            f"in several: {_listed(named)}. Take copies out (`hemaml data verify` names them), or "
            "correct the parts."
        )


def _in_several(names: Sequence[str], parts: Sequence[str]) -> set[str]:
    """The names that occur in more than one part."""
    pairs = set(zip(names, parts, strict=True)) if names else set()
    return {name for name, num in Counter(name for name, _ in pairs).items() if num > 1}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (" and others" if len(names) > 8 else "")


def is_leaky(dataset: Dataset, split: "Split") -> bool:
    """Whether the split may part what belongs together, because it was asked not to look."""
    if split.group == "auto":
        return False
    if len(set(dataset.groups)) < len(dataset.groups):
        return True
    return split.folds == "official" and bool(_in_several(dataset.contents(), dataset.parts))


def split_kind(splits: Sequence[Fold | Outer]) -> SplitKind:
    """What the splits keep apart, found in the splits themselves.

    `leaky`: items of one group, or copies of one image, lie in two parts of a split; `official`:
    the part that is scored is one official part each time; `grouped`: groups are whole; `images`:
    the data has no groups.
    """
    parts = [list(parts_of(split).values()) for split in splits]
    if any(_shares(split) for split in parts):
        return "leaky"
    if all(_is_official(split) for split in parts):
        return "official"
    return "grouped" if parts[0][0].groups else "images"


def _shares(split: Sequence[Dataset]) -> bool:
    """Whether two parts have a group or an image in common."""
    return any(
        sum(map(len, sets)) > len(set().union(*sets))
        for sets in ([set(p.groups) for p in split], [set(p.contents()) for p in split])
    )


def _is_official(split: Sequence[Dataset]) -> bool:
    """Whether the last part is one official part, of which the others have nothing."""
    *others, scored = split
    own = set(scored.parts)
    return len(own) == 1 and not any(own & set(part.parts) for part in others)


def split_digest(splits: Sequence[Fold | Outer]) -> str:
    """Hex digest of which items, by id and content, are in which part."""
    lines = [
        f"{index}\x1f{part}\x1f{line}"
        for index, split in enumerate(splits)
        for part, data in parts_of(split).items()
        for line in sorted(f"{i}\x1f{d}" for i, d in zip(data.ids, data.digests, strict=True))
    ]
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def split_record(splits: Sequence[Fold | Outer]) -> dict[str, object]:
    """What is stored as the artifact of a split, as JSON values.

    `digest`, `kind` (see `split_kind`), and for each split and part (`train`, `val`, `test`) its
    `ids`, the digests of its images as `contents`, and the numbers of `items` and `groups` (None
    where the data has no groups) in all and by class of `Dataset.labels`.
    """
    return {
        "digest": split_digest(splits),
        "kind": split_kind(splits),
        "splits": [
            {name: _part_record(part) for name, part in parts_of(split).items()} for split in splits
        ],
    }


def parts_of(split: Fold | Outer) -> dict[str, Dataset]:
    """The labelled parts by name, in the order in which they are used."""
    if isinstance(split, Outer):
        return {**parts_of(split.fold), "test": split.test}
    return {"train": split.train, "val": split.val}


def _part_record(part: Dataset) -> dict[str, object]:
    def numbers(indices: Sequence[int]) -> dict[str, int | None]:
        groups = len({part.groups[i] for i in indices}) if part.groups else None
        return {"items": len(indices), "groups": groups}

    by_label = defaultdict(list)
    for index, label in enumerate(part.labels):
        by_label[label].append(index)
    return {
        "ids": sorted(part.ids),
        "contents": sorted(part.contents()),
        **numbers(range(len(part))),
        "classes": {str(label): numbers(by_label[label]) for label in sorted(by_label)},
    }


def _split(
    dataset: Dataset, shares: Sequence[float], purpose: str, seed: int, *, grouped: bool
) -> list[list[int]]:
    """Indices of the items of each part, in order of their ids; no part is empty.

    Args:
        dataset: What to split.
        shares: P shares of the parts, with sum 1.
        purpose: Keeps splits of one seed for different ends independent.
        seed: Fixes the order of the units.
        grouped: Whether groups are kept together; copies of an image always are.
    """
    units = _units(dataset, grouped=grouped)
    if len(units) < len(shares):
        kind = "groups or distinct images" if grouped and dataset.groups else "distinct images"
        raise DataError(
            f"a split into {len(shares)} parts needs at least {len(shares)} {kind}, but "
            f"{dataset.name!r} has {len(units)} ({len(dataset)} items). "
            "Ask for fewer folds, or use more data."
        )
    counts_UC = np.stack([unit.counts for unit in units])
    best, best_cost = None, np.inf
    for attempt in range(max(1, min(MAX_ORDERS, ORDER_BUDGET // len(units)))):
        key = {u: derive_seed(seed, purpose, attempt, unit.name) for u, unit in enumerate(units)}
        order = sorted(key, key=lambda u: (key[u], units[u].name))
        part_U = _deal(counts_UC, np.array(shares), order)
        cost = _imbalance(counts_UC, np.array(shares), part_U)
        if cost < best_cost:
            best, best_cost = part_U, cost
    assert best is not None
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


def _imbalance(counts_UC: Int64Array, shares_P: Float64Array, part_U: Int64Array) -> float:
    """Chi-square of the strata and the sizes of the parts against their shares."""
    got_PC = np.stack([counts_UC[part_U == p].sum(axis=0) for p in range(len(shares_P))])
    totals_C = counts_UC.sum(axis=0)
    got_PK = np.column_stack([got_PC, got_PC.sum(axis=1)])
    wanted_PK = shares_P[:, None] * np.append(totals_C, totals_C.sum())[None, :]
    return float(np.round(((got_PK - wanted_PK) ** 2 / wanted_PK).sum(), 9))


def _units(dataset: Dataset, *, grouped: bool) -> list[Unit]:
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
