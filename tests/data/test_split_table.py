"""The table of parts that a run's page shows."""

from hemaml.core.experiment import Split
from hemaml.core.markdown import SPACE
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
        counts = [part.labels.count(i) for i in (0, 1)]
        told = ", ".join(f"{c} {n}" for c, n in zip(data.classes, counts, strict=True) if n)
        assert f"| {name} | {len(part)} | {groups} | {told} |" in lines


def test_a_leaky_split_says_so_and_many_splits_are_counted():
    data = read(SmearTypes(classes="binary", patients=6, per_patient=4, size=32))
    splits = list(outer(data, Split(group="none"), 5, 0))
    lines = [line.replace(SPACE, "") for line in split_table(splits, data.classes)]
    assert "LEAKY" in lines[0] and lines[-1].startswith("| and 2 more")
    assert sum(": test |" in line for line in lines) == 3
