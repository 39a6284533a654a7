import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hemaml.core.dataset import Dataset
from hemaml.core.errors import ConfigError, DataError
from hemaml.core.sweep import Split
from hemaml.core.task import Fold
from hemaml.data.assignment import _cost, assign, imbalance_of
from hemaml.data.reading import read_dataset
from hemaml.data.splits import (
    folds,
    held_out,
    is_leaky,
    outer,
    split_digest,
    split_kind,
    split_record,
    unbalanced,
)

GOLDEN_FOLDS = "a811e419f56dda4d6067d8f1349d9e7b"
GOLDEN_OUTER = "08d624927427c653114c71ed2cbb1e90"

quick = settings(max_examples=30, deadline=None)


def make_dataset(labels, groups=(), contents=None) -> Dataset:
    """Items of one pixel; `contents` gives equal images equal numbers."""
    num = len(labels)
    contents = range(num) if contents is None else contents
    images = [np.frombuffer(np.int64(c).tobytes()[:3], np.uint8).reshape(1, 1, 3) for c in contents]
    return Dataset(
        name="test",
        classes=("a", "b"),
        ids=tuple(f"{i:04d}" for i in range(num)),
        images=tuple(images),
        digests=tuple(f"d{i}" for i in range(num)),
        labels=tuple(labels),
        groups=tuple(groups),
    )


@st.composite
def datasets(draw, *, grouped=None, least=12) -> Dataset:
    num = draw(st.integers(least, 60))
    labels = draw(st.lists(st.integers(0, 3), min_size=num, max_size=num))
    if draw(st.booleans()) if grouped is None else grouped:
        # At least `least` groups, so that any split of these tests is possible.
        extra = draw(
            st.lists(st.integers(0, least + 5), min_size=num - least, max_size=num - least)
        )
        groups = [f"g{g}" for g in [*range(least), *extra]]
    else:
        groups = []
    return make_dataset(labels, groups)


def shuffled(dataset: Dataset, seed: int) -> Dataset:
    return dataset.subset(np.random.default_rng(seed).permutation(len(dataset)).tolist())


def parts_of(split) -> list[Dataset]:
    return [split.train, split.val]


def assert_partition(dataset, parts):
    ids = [name for part in parts for name in part.ids]
    assert sorted(ids) == sorted(dataset.ids)
    assert all(len(part) for part in parts)


@given(datasets(), st.integers(0, 5))
@quick
def test_held_out_is_a_grouped_partition(dataset, seed):
    rest, held = held_out(dataset, seed=seed)
    assert_partition(dataset, [rest, held])
    assert not set(rest.groups) & set(held.groups)


@given(datasets(), st.integers(1, 6), st.integers(0, 5))
@quick
def test_folds_are_grouped_partitions(dataset, num, seed):
    found = folds(dataset, Split(folds=num, seed=seed))
    assert len(found) == num
    for fold in found:
        assert_partition(dataset, parts_of(fold))
        assert not set(fold.train.groups) & set(fold.val.groups)
    if num > 1:
        assert_partition(dataset, [fold.val for fold in found])


@given(datasets(), st.integers(0, 5))
@quick
def test_outer_splits_are_grouped_partitions(dataset, seed):
    for split in outer(dataset, Split(), 2, seed):
        parts = [split.fold.train, split.fold.val, split.test]
        assert_partition(dataset, parts)
        groups = [set(part.groups) for part in parts]
        assert sum(map(len, groups)) == len(set().union(*groups))


@given(datasets(), st.integers(0, 5), st.integers(1, 4))
@quick
def test_order_of_items_does_not_matter(dataset, seed, num):
    split = Split(folds=num, seed=seed)
    assert split_digest(folds(dataset, split)) == split_digest(folds(shuffled(dataset, 1), split))


@given(datasets(grouped=False), st.integers(0, 5))
@quick
def test_single_items_meet_sizes_and_strata(dataset, seed):
    _, held = held_out(dataset, seed=seed, fraction=0.25)
    assert abs(len(held) - 0.25 * len(dataset)) <= 1.5
    wanted, found = Counter(dataset.labels), Counter(held.labels)
    assert all(abs(found[label] - 0.25 * wanted[label]) <= 1.5 for label in wanted)


@given(datasets(grouped=False, least=20), st.integers(2, 5), st.integers(0, 5))
@quick
def test_folds_of_single_items_are_even(dataset, num, seed):
    vals = [fold.val for fold in folds(dataset, Split(folds=num, seed=seed))]
    assert max(map(len, vals)) - min(map(len, vals)) <= 2
    for label in set(dataset.labels):
        counts = [val.labels.count(label) for val in vals]
        assert max(counts) - min(counts) <= 2


@given(datasets(grouped=True), st.integers(0, 5))
@quick
def test_groups_meet_sizes_as_far_as_the_largest_allows(dataset, seed):
    _, held = held_out(dataset, seed=seed, fraction=0.25)
    largest = max(Counter(dataset.groups).values())
    assert abs(len(held) - 0.25 * len(dataset)) <= largest + 1


@given(st.lists(st.integers(0, 6), min_size=30, max_size=40), st.booleans(), st.integers(0, 3))
@quick
def test_copies_of_an_image_stay_together(contents, grouped, seed):
    contents = [*contents, *range(100, 110)]
    groups = [f"g{i}" for i in range(len(contents))] if grouped else []
    dataset = make_dataset([0] * len(contents), groups, contents)
    for group in ("auto", "none"):
        for fold in folds(dataset, Split(folds=3, seed=seed, group=group)):
            where = dict(zip(dataset.ids, contents, strict=True))
            train = {where[name] for name in fold.train.ids}
            assert not train & {where[name] for name in fold.val.ids}


def test_groups_linked_by_a_copied_image_stay_together():
    groups = ["p", "p", "q", "q", "r", "s", "t", "u"]
    dataset = make_dataset([0] * 8, groups, [0, 1, 1, 2, 3, 4, 5, 6])
    for seed in range(10):
        rest, _ = held_out(dataset, seed=seed, fraction=0.3)
        assert len({"p", "q"} & set(rest.groups)) in (0, 2)


def test_seeds_and_purposes_give_different_splits():
    dataset = make_dataset([0, 1] * 30)
    held = {held_out(dataset, seed=seed)[1].ids for seed in range(20)}
    assert len(held) == 20
    tests = {split.test.ids for split in outer(dataset, Split(), 20, 0)}
    assert len(tests) == 20
    (fold,) = folds(dataset, Split(seed=0))
    assert fold.val.ids != held_out(dataset, seed=0)[1].ids


def test_groups_of_all_sizes_reach_the_held_out_part():
    groups = [f"g{size:02d}" for size in range(1, 21) for _ in range(size)]
    dataset = make_dataset([0] * len(groups), groups)
    drawn = Counter(g for s in range(60) for g in set(held_out(dataset, seed=s)[1].groups))
    assert all(drawn[f"g{size:02d}"] for size in range(1, 21))


def test_splits_are_the_same_for_ever():
    """Promotion compares models on the held-out part: a change here breaks every registry."""
    dataset = make_dataset([0, 0, 1] * 10, [f"g{i // 2}" for i in range(30)])
    held = held_out(dataset, seed=7)[1]
    assert held.ids == ("0012", "0013", "0028", "0029")
    assert split_digest(folds(dataset, Split(folds=3, seed=7))) == GOLDEN_FOLDS
    assert split_digest(list(outer(dataset, Split(), 2, 7))) == GOLDEN_OUTER


def cases(sizes, spare=0):
    """Groups of one class each, by class: their numbers of images."""
    labels, groups = [], []
    for label, of_class in enumerate(sizes):
        for index, size in enumerate(of_class):
            labels += [label] * size
            groups += [f"{label}-{index}"] * size
    return replace(make_dataset(labels, groups), classes=("a", "b", "c", "d")[: len(sizes)])


@quick
@given(st.lists(st.lists(st.integers(1, 20), min_size=3, max_size=7), min_size=2, max_size=4))
def test_no_part_lacks_a_class_that_has_groups_enough(sizes):
    dataset = cases(sizes)
    labels = set(dataset.labels)
    for split in outer(dataset, Split(test=0.15, outer_val=0.15), 3, 0):
        for part in (split.fold.train, split.fold.val, split.test):
            assert set(part.labels) == labels
    for fold in folds(dataset, Split(folds=3)):
        assert set(fold.val.labels) == labels


def test_few_groups_are_balanced_as_well_as_any_assignment_of_them():
    """All 3^9 assignments as the oracle."""
    dataset = cases([[11, 10, 14, 9], [13, 19, 12], [11, 12]])
    groups = sorted(set(dataset.groups))
    pairs = Counter(zip(dataset.groups, dataset.labels, strict=True))
    counts = np.array([[pairs[group, label] for label in range(3)] for group in groups])
    shares = np.full(3, 1 / 3)
    best = min(
        _cost(counts, shares, np.array(parts))
        for parts in itertools.product(range(3), repeat=len(groups))
        if len(set(parts)) == 3
    )
    found = [fold.val for fold in folds(dataset, Split(folds=3))]
    where = {g: i for i, part in enumerate(found) for g in part.groups}
    assert _cost(counts, shares, np.array([where[g] for g in groups])) == best


def test_each_group_is_scored_once_by_a_model_of_all_others():
    dataset = cases([[3, 4, 2], [5, 1, 2]])
    split = Split(folds="each_group", val=0.3)
    found = list(outer(dataset, split, None, 0))
    assert [set(s.test.groups) for s in found] == [{g} for g in sorted(set(dataset.groups))]
    for s in found:
        assert_partition(dataset, [s.fold.train, s.fold.val, s.test])
        assert not set(s.test.groups) & {*s.fold.train.groups, *s.fold.val.groups}
    assert split_kind(found) == "grouped"
    assert [fold.val.ids for fold in folds(dataset, split)] == [s.test.ids for s in found]
    with pytest.raises(ConfigError, match="has 6 and `splits` is 4"):
        list(outer(dataset, split, 4, 0))
    with pytest.raises(DataError, match="names none"):
        folds(make_dataset([0, 1] * 5), split)


def test_what_could_not_be_balanced_is_told():
    dataset = cases([[10, 10, 10], [4, 4, 22]])
    told = unbalanced(folds(dataset, Split(folds=3)))
    assert "split 2: val has 73% of b, but 53% of all images" in told
    assert split_record(folds(dataset, Split(folds=3)))["unbalanced"] == told
    lacking = cases([[3] * 12, [9]])
    assert any("val has nothing of b" in line for line in unbalanced(folds(lacking, Split())))
    assert unbalanced(folds(make_dataset([0, 1] * 30), Split(folds=3))) == []
    assert unbalanced(list(outer(dataset, Split(folds="each_group"), None, 0)))


def test_the_record_tells_how_far_each_split_is_from_balanced():
    """Chi-square by hand; then splits that vary beside the best one."""
    dataset = cases([[3, 1], [1, 3]])
    skewed = Fold(dataset.subset([0, 1, 2, 4]), dataset.subset([3, 5, 6, 7]))  # 3 + 1, 1 + 3
    even = Fold(dataset.subset([0, 1, 4, 5]), dataset.subset([2, 3, 6, 7]))
    assert split_record([skewed, even])["imbalance"] == [4 * 1**2 / 2, 0]

    dataset = cases([[11, 10, 14, 9], [13, 19, 12], [11, 12, 10]])
    drawn = split_record(list(outer(dataset, Split(test=0.3, outer_val=0.3), 10, 0)))["imbalance"]
    best = assign(dataset, [0.4, 0.3, 0.3], "outer-0", 0, grouped=True)
    least = imbalance_of([dataset.subset(part) for part in best])
    assert len(set(drawn)) > 5 and np.mean(drawn) > least > 0


def test_the_record_of_data_without_labels_has_an_imbalance_of_nothing():
    found = folds(replace(make_dataset([0] * 9), labels=()), Split(folds=2))
    assert split_record(found)["imbalance"] == [0, 0]


def test_a_part_smaller_than_the_number_of_classes_is_told_once():
    data = make_dataset([0] * 33 + [1] * 37 + [2] * 15 + [3] * 12)
    (split,) = outer(data, Split(test=0.6, outer_val=0.01), 1, 0)
    assert len(split.fold.val) == 1
    assert unbalanced([split]) == ["val has 1 image for 4 classes"]


def test_a_class_of_one_item_does_not_crash():
    dataset = make_dataset([0] * 20 + [1])
    rest, held = held_out(dataset, seed=0)
    assert 1 in rest.labels
    vals = [fold.val.labels.count(1) for fold in folds(dataset, Split(folds=5))]
    assert sorted(vals) == [0, 0, 0, 0, 1]
    assert held.labels


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (make_dataset([0] * 3), r"at least 5 distinct images, but 'test' has 3 \(3 items\)"),
        (make_dataset([0] * 9, ["a", "b", "c"] * 3), r"5 groups or distinct images.* has 3 \(9"),
        (make_dataset([0] * 9, contents=[0] * 9), "has 1"),
        (make_dataset([]), "has 0"),
    ],
)
def test_too_few_units_are_named(dataset, message):
    with pytest.raises(DataError, match=message):
        folds(dataset, Split(folds=5))


def test_ungrouped_is_by_request_and_leaky_only_where_groups_have_more_than_one_item():
    dataset = make_dataset([0] * 20, [f"g{i // 5}" for i in range(20)])
    (fold,) = folds(dataset, Split(val=0.4, group="none"))
    assert set(fold.train.groups) & set(fold.val.groups)
    assert is_leaky(dataset, Split(group="none"))
    assert not is_leaky(dataset, Split())
    assert not is_leaky(replace(dataset, groups=()), Split(group="none"))
    assert not is_leaky(replace(dataset, groups=dataset.ids), Split(group="none"))


def test_the_record_counts_items_and_groups_by_class():
    dataset = make_dataset([0, 0, 1, 1] * 3, [f"g{i // 2}" for i in range(12)])
    found = folds(dataset, Split(folds=3))
    record = split_record(found)
    assert record["digest"] == split_digest(found)
    part = record["splits"][0]["val"]
    assert part["ids"] == sorted(found[0].val.ids)
    assert part["items"] == 4
    assert part["groups"] == 2
    assert sum(part["classes"][label]["items"] for label in part["classes"]) == 4
    (split,) = outer(dataset, Split(), 1, 0)
    assert set(split_record([split])["splits"][0]) == {"train", "val", "test"}


def make_official(*, straddle=False) -> Dataset:
    """Three official folds of 6 groups of 2, and a test part of 2 groups."""
    groups = [f"g{i // 2:02d}" for i in range(40)]
    parts = [*(f"fold_{i // 12}" for i in range(36)), *["test"] * 4]
    if straddle:
        groups[12] = groups[11]
    return replace(make_dataset([0, 1] * 20, groups), parts=tuple(parts))


def test_official_folds_are_each_the_scored_part_once():
    dataset = make_official()
    found = folds(dataset, Split(folds="official"))
    assert [set(fold.val.parts) for fold in found] == [{"fold_0"}, {"fold_1"}, {"fold_2"}]
    for fold in found:
        assert_partition(dataset.subset(range(36)), parts_of(fold))
    splits = list(outer(dataset, Split(folds="official", val=0.25), None, 0))
    assert [set(split.test.parts) for split in splits] == [{"fold_0"}, {"fold_1"}, {"fold_2"}]
    for split in splits:
        parts = [split.fold.train, split.fold.val, split.test]
        assert_partition(dataset.subset(range(36)), parts)
        assert len(split.fold.val) == 6
        assert sum(len(set(part.groups)) for part in parts) == 18
    assert split_kind(found) == split_kind(splits) == "official"
    assert split_digest(list(outer(dataset, Split(folds="official"), 3, 1))) != split_digest(splits)


def test_an_official_test_part_is_held_out_and_nothing_else():
    dataset = make_official()
    rest, held = held_out(dataset, seed=3)
    assert set(held.parts) == {"test"} and len(held) == 4
    assert "test" not in rest.parts and len(rest) == 36
    (split,) = outer(dataset, Split(test=0.3), 1, 0)
    assert_partition(rest, [split.fold.train, split.fold.val, split.test])


@pytest.mark.parametrize(
    ("dataset", "num", "error", "message"),
    [
        (
            make_dataset([0] * 9),
            None,
            DataError,
            r"two official folds or more, but 'test' has none",
        ),
        (make_official(straddle=True), None, DataError, r"in several: g05\. Correct the parts"),
        (make_official(), 5, ConfigError, r"'test' has 3 and `splits` is 5\. Leave `splits` out"),
    ],
)
def test_official_folds_that_cannot_be_used_are_told(dataset, num, error, message):
    split = Split(folds="official")
    with pytest.raises(error, match=message):
        list(outer(dataset, split, num, 0))
    if error is DataError:
        with pytest.raises(error, match=message):
            folds(dataset, split)


def test_a_held_out_part_that_shares_a_group_is_refused():
    dataset = make_official()
    with pytest.raises(DataError, match=r"in several: g00"):
        held_out(replace(dataset, groups=(*dataset.groups[:-1], "g00")), seed=0)


def test_official_parts_that_share_an_image_are_refused_or_leaky():
    official = make_official()
    copied = replace(official, images=(*official.images[:-1], official.images[0]))
    with pytest.raises(DataError, match=r"lie in several: 0000, 0039\. Take copies out"):
        held_out(copied, seed=0)
    twice = replace(official, images=(official.images[12], *official.images[1:]))
    by_fold = Split(folds="official")
    for use in (lambda: folds(twice, by_fold), lambda: list(outer(twice, by_fold, None, 0))):
        with pytest.raises(DataError, match=r"lie in several: 0000, 0012\. Take copies out"):
            use()
    assert not is_leaky(twice, by_fold)
    asked_for = Split(folds="official", group="none")
    assert is_leaky(replace(twice, groups=()), asked_for)
    assert not is_leaky(replace(official, groups=()), asked_for)
    assert split_kind(folds(replace(twice, groups=()), asked_for)) == "leaky"


def test_an_image_split_of_80_to_20_is_by_request_and_leaky():
    dataset = make_dataset([0, 0, 0, 1] * 25, [f"g{i // 10}" for i in range(100)])
    split = Split(group="none", test=0.2)
    (found,) = outer(dataset, split, 1, 0)
    assert [len(part) for part in (found.fold.train, found.fold.val, found.test)] == [70, 10, 20]
    assert found.test.labels.count(1) == 5
    assert set(found.test.groups) & set(found.fold.train.groups)
    assert is_leaky(dataset, split)
    assert split_record([found])["kind"] == "leaky"
    (grouped,) = outer(dataset, Split(test=0.2), 1, 0)
    assert split_kind([grouped]) == "grouped"
    assert len(grouped.test) == 20
    assert len(list(outer(dataset, split, None, 0))) == 5


def test_a_split_of_data_without_groups_is_by_image():
    assert split_kind(folds(make_dataset([0, 1] * 10), Split(group="none"))) == "images"


def test_digests_of_the_reader_give_the_same_split_as_the_images():
    dataset = make_dataset([0, 1] * 15, contents=[*range(25), *range(5)])
    known = replace(dataset, image_digests=dataset.contents(), images=(None,) * 30)
    for group in ("auto", "none"):
        split = Split(folds=3, group=group)
        assert split_digest(folds(known, split)) == split_digest(folds(dataset, split))


def test_the_digest_tells_contents_and_parts_apart():
    dataset = make_dataset([0] * 12)
    found = folds(dataset, Split(folds=2))
    assert split_digest(found) != split_digest(found[::-1])
    changed = replace(dataset, digests=tuple(f"e{i}" for i in range(12)))
    assert split_digest(found) != split_digest(folds(changed, Split(folds=2)))


def test_the_duplicate_of_the_papers_data_stays_together(real_data):
    dataset = read_dataset({"reader": "segmentation_wbc", "set": 1})
    for seed in range(3):
        for fold in folds(dataset, Split(folds=5, seed=seed)):
            assert ("112" in fold.val.ids) == ("139" in fold.val.ids)
    for split in outer(dataset, Split(), 5, 0):
        assert (len(split.fold.train), len(split.fold.val), len(split.test)) == (240, 30, 30)


@quick
@given(datasets(least=14), st.integers(2, 4), st.integers(0, 5))
def test_outer_folds_score_each_item_once(dataset, count, seed):
    split = Split(outer_folds=count, outer_val=0.1)
    found = list(outer(dataset, split, None, seed))
    assert len(found) == count
    tested = [name for each in found for name in each.test.ids]
    assert sorted(tested) == sorted(dataset.ids)
    for each in found:
        parts = each.fold.train, each.fold.val, each.test
        assert sorted(i for part in parts for i in part.ids) == sorted(dataset.ids)
        assert split_kind([each]) in ("grouped", "images")


def test_outer_folds_are_stratified_and_validation_is_a_share_of_all():
    data = make_dataset([0] * 60 + [1] * 30 + [2] * 10)
    for each in outer(data, Split(outer_folds=5, outer_val=0.08), 5, 0):
        assert Counter(each.test.labels) == {0: 12, 1: 6, 2: 2}
        assert (len(each.fold.train), len(each.fold.val)) == (72, 8)
    with pytest.raises(ConfigError, match="Leave `splits` out"):
        list(outer(data, Split(outer_folds=5), 4, 0))


@pytest.mark.parametrize(
    "split", [{"test": 0.6, "outer_val": 0.4}, {"outer_folds": 2, "outer_val": 0.5}]
)
def test_outer_splits_must_leave_something_to_train_on(split):
    with pytest.raises(ValueError, match="leave something to train on"):
        Split(**split)


def test_a_third_of_each_class_to_learn_from():
    data = make_dataset([0] * 33 + [1] * 37 + [2] * 15 + [3] * 12 + [4] * 3)
    for each in outer(data, Split(test=0.6, outer_val=0.07), 5, 0):
        sizes = np.array([len(each.fold.train), len(each.fold.val), len(each.test)])
        assert np.abs(sizes - (33, 7, 60)).max() <= 1
        learned = Counter(each.fold.train.labels)
        assert all(abs(learned[c] - n / 3) <= 1 for c, n in Counter(data.labels).items())


def test_what_a_test_part_gives_away_has_no_targets():
    data = replace(make_dataset([0, 1] * 10), masks=("m",) * 20, drawn=tuple(range(20)))
    (split,) = outer(data, Split(test=0.3), 1, 0)
    given_away = split.fold.unlabelled
    assert given_away.ids == split.test.ids and given_away.drawn == split.test.drawn
    assert (given_away.labels, given_away.masks) == ((), ())
    assert not set(given_away.digests) & set(data.digests)
