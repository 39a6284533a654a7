"""Deterministic, stratified, grouped splits, shared by all tasks.

Official parts are used as they come: a part `test` is the held-out part and in nothing else, the
others are the folds of `folds: official`.

Which items may not be parted, and how the parts are balanced, stands in `hemaml.data.assignment`.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from hemaml.core.dataset import Dataset
from hemaml.core.errors import ConfigError, DataError
from hemaml.core.task import Fold, Outer
from hemaml.data.assignment import assign, imbalance_of, units_of

if TYPE_CHECKING:
    from hemaml.core.sweep import Split

SplitKind = Literal["official", "grouped", "images", "leaky"]
KIND_IN_WORDS: dict[SplitKind, str] = {
    "official": "The data set's own parts; groups are whole.",
    "grouped": "Groups (patients, cases or slides) are whole.",
    "images": "Split by image: the data set names no groups.",
    "leaky": "LEAKY: items of one group lie in several parts, so the scores are too good.",
}
TEST = "test"
"""The official part that is held out."""
DEFAULT_OUTER = 5
UNBALANCED = 0.05
"""Shares that differ by more are told."""


def held_out(dataset: Dataset, *, seed: int, fraction: float = 0.15) -> tuple[Dataset, Dataset]:
    """The data set without the held-out part, and the held-out part.

    That is the official part `test` where there is one, else a share: grouped, stratified.

    Raises:
        DataError: There are fewer than two units, or the official parts share a group or an image.
    """
    if TEST in dataset.parts:
        _check_parts(dataset, ["rest" if part != TEST else TEST for part in dataset.parts])
        return _without_test(dataset), _part(dataset, TEST)
    rest, held = assign(dataset, [1 - fraction, fraction], "held-out", seed, grouped=True)
    return dataset.subset(rest), dataset.subset(held)


def folds(dataset: Dataset, split: "Split") -> tuple[Fold, ...]:
    """The folds that a sweep sees: one of train and validation, or as many as `split.folds` says.

    Raises:
        DataError: There are fewer units than parts, or the official folds cannot be used, or there
            are no groups to leave out one by one.
    """
    grouped = split.group == "auto"
    if split.folds == "official":
        return tuple(Fold(rest, fold) for rest, fold in _official(dataset, grouped=grouped))
    if split.folds == "each_group":
        return tuple(Fold(rest, own) for rest, own in _each_group(dataset))
    if split.folds == 1:
        parts = assign(dataset, [1 - split.val, split.val], "val", split.seed, grouped=grouped)
        return (Fold(dataset.subset(parts[0]), dataset.subset(parts[1])),)
    shares = [1 / split.folds] * split.folds
    parts = assign(dataset, shares, "folds", split.seed, grouped=grouped)
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
    `split.outer_val` in the validation part and the rest to train. With `outer_folds: k` each of k
    folds is the test part once, and `split.outer_val` of all items, from the others, the validation
    part. With `folds: official` each official fold is the test part once, with `folds: each_group`
    each group; `split.val` of the others is the validation part.

    Args:
        dataset: The whole data set.
        split: How to divide it.
        num: Number of splits, default 5 random ones; there are as many as folds or groups.
        seed: Of the random splits, and of the validation parts.

    Raises:
        ConfigError: `num` is not the number of folds, or of groups.
        DataError: There are fewer than three units, or the official folds cannot be used, or there
            are no groups to leave out one by one.
    """
    grouped = split.group == "auto"
    dataset = _without_test(dataset)
    if split.folds in ("official", "each_group"):
        yield from _given_outer(dataset, split, num, seed)
        return
    if split.outer_folds is not None:
        yield from _outer_folds(dataset, split, split.outer_folds, num, seed)
        return
    shares = [round(1 - split.outer_val - split.test, 9), split.outer_val, split.test]
    for index in range(DEFAULT_OUTER if num is None else num):
        train, val, test = assign(
            dataset, shares, f"outer-{index}", seed, grouped=grouped, varied=True
        )
        yield _outer(dataset.subset(train), dataset.subset(val), dataset.subset(test))


def _outer_folds(
    dataset: Dataset, split: "Split", count: int, num: int | None, seed: int
) -> Iterator[Outer]:
    """Each of `count` folds is the test part once."""
    if num not in (None, count):
        raise ConfigError(
            f"with `outer_folds: {count}` there are as many outer splits, but `splits` is {num}. "
            "Leave `splits` out."
        )
    grouped = split.group == "auto"
    tests = assign(dataset, [1 / count] * count, "outer-folds", seed, grouped=grouped)
    val = split.outer_val / (1 - 1 / count)  # of the others
    for index, test in enumerate(tests):
        rest = dataset.subset(sorted(i for part in tests if part is not test for i in part))
        shares = [round(1 - val, 9), round(val, 9)]
        parts = assign(rest, shares, f"outer-folds-{index}", seed, grouped=grouped)
        yield _outer(rest.subset(parts[0]), rest.subset(parts[1]), dataset.subset(test))


def _outer(train: Dataset, val: Dataset, test: Dataset) -> Outer:
    """Transductive protocols may see what the test part is given, never its targets."""
    return Outer(Fold(train, val, unlabelled=test.inputs()), test)


def _given_outer(dataset: Dataset, split: "Split", num: int | None, seed: int) -> Iterator[Outer]:
    """Each part that the data set itself names is the test part once."""
    grouped = split.group == "auto"
    official = split.folds == "official"
    found = _official(dataset, grouped=grouped) if official else _each_group(dataset)
    if num not in (None, len(found)):
        raise ConfigError(
            f"with `folds: {split.folds}` there are as many outer splits as "
            f"{'official folds' if official else 'groups'}, but {dataset.name!r} has {len(found)} "
            f"and `splits` is {num}. Leave `splits` out."
        )
    for rest, test in found:
        purpose = f"official-{test.parts[0]}" if official else f"without-{test.groups[0]}"
        train, val = assign(rest, [1 - split.val, split.val], purpose, seed, grouped=grouped)
        yield _outer(rest.subset(train), rest.subset(val), test)


def _each_group(dataset: Dataset) -> list[tuple[Dataset, Dataset]]:
    """For each group, in order of their names, all others and itself (leave one group out).

    Groups that share copies of an image count as one.
    """
    if not dataset.groups:
        raise DataError(
            f"`folds: each_group` needs a data set that names patients, cases or slides, but "
            f"{dataset.name!r} names none. Use `folds: 5`, or a reader that knows them."
        )
    units = units_of(dataset, grouped=True)
    units.sort(key=lambda unit: dataset.groups[unit.items[0]])
    return [
        (
            dataset.subset([i for other in units if other is not unit for i in other.items]),
            dataset.subset(unit.items),
        )
        for unit in units
    ]


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
    where the data has no groups) in all and by class of `Dataset.labels`; `unbalanced` in words,
    and the `imbalance` of each split as a number (see `imbalance_of`): random outer splits of a few
    groups are drawn to vary, so theirs is seldom the least that the groups allow.
    """
    return {
        "digest": split_digest(splits),
        "kind": split_kind(splits),
        "unbalanced": unbalanced(splits),
        "imbalance": [imbalance_of(list(parts_of(split).values())) for split in splits],
        "splits": [
            {name: _part_record(part) for name, part in parts_of(split).items()} for split in splits
        ],
    }


def unbalanced(splits: Sequence[Fold | Outer]) -> list[str]:
    """What could not be balanced, in words: classes that a part lacks, or has another share of.

    A share is told where it is more than `UNBALANCED` away from the part's share of all images, a
    part with fewer images than classes once. A part of one group alone is not asked to be balanced.
    """
    told = []
    for index, split in enumerate(splits):
        parts = {n: part for n, part in parts_of(split).items() if len(set(part.groups)) != 1}
        where = f"split {index}: " if len(splits) > 1 else ""
        totals = Counter(label for part in parts.values() for label in part.labels)
        for name, part in parts.items():
            if len(part) < len(totals):
                num = f"{len(part)} image{'s' if len(part) > 1 else ''}"
                told.append(f"{where}{name} has {num} for {len(totals)} classes")
                continue
            share, counts = len(part) / sum(map(len, parts.values())), Counter(part.labels)
            for label in sorted(totals):
                of_label = counts[label] / totals[label]
                if counts[label] == 0 or abs(of_label - share) > UNBALANCED:
                    got = f"{of_label:.0%}" if of_label else "nothing"
                    own = f"{where}{name} has {got} of {label_name(part, label)}"
                    told.append(f"{own}, but {share:.0%} of all images")
    return told


def label_name(data: Dataset, label: int) -> str:
    """The class of a classification set; a number where labels are not classes but cell types."""
    return f"type {label}" if len(data.masks) else data.classes[label]


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
