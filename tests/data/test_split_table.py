"""The table of parts that a run's page shows."""

from dataclasses import replace

from hemaml.core.markdown import SPACE
from hemaml.core.sweep import Split
from hemaml.data.smear_types import SmearTypes, read
from hemaml.data.split_table import split_table
from hemaml.data.splits import folds, outer


def test_each_part_has_a_row_with_its_images_groups_and_classes():
    data = read(SmearTypes(classes="binary", patients=6, per_patient=4, size=32))
    (fold,) = splits = folds(data, Split())
    lines = [line.replace(SPACE, "") for line in split_table(splits, data.classes)]
    assert "Groups (patients, cases or slides) are whole." in lines[0]
    for name, part in (("train", fold.train), ("val", fold.val)):
        groups = len(set(part.groups))
        told = ", ".join(
            f"{data.classes[i]} {part.labels.count(i)} ({part.labels.count(i) // 4})"
            for i in (0, 1)
            if i in part.labels
        )
        assert f"| {name} | {len(part)} | {groups} | {told} |" in lines


def test_a_group_counts_in_each_of_its_classes_and_unknown_groups_are_not_counted():
    data = read(SmearTypes(classes="types", patients=6, per_patient=10, size=32))
    (fold,) = splits = folds(data, Split(group="none"))
    (line,) = [line for line in split_table(splits, data.classes) if line.startswith("| train")]
    neutrophils = [g for g, y in zip(fold.train.groups, fold.train.labels, strict=True) if y == 0]
    assert f"neutrophil {len(neutrophils)} ({len(set(neutrophils))})" in line
    (fold,) = splits = folds(replace(data, groups=()), Split())
    head, _, *rows = split_table(splits, data.classes)[2:]
    assert "of groups" not in head and all("unknown" in row and "(" not in row for row in rows)


def test_a_leaky_split_says_so_and_many_splits_are_counted():
    data = read(SmearTypes(classes="binary", patients=6, per_patient=4, size=32))
    splits = list(outer(data, Split(group="none"), 5, 0))
    lines = [line.replace(SPACE, "") for line in split_table(splits, data.classes)]
    assert "LEAKY" in lines[0] and lines[-1].startswith("| and 2 more")
    assert sum(": test" in line for line in lines) == 3
