"""What lies in which part of a split, as a table for people."""

from collections import Counter
from collections.abc import Sequence

from hemaml.core.dataset import Dataset
from hemaml.core.markdown import markdown_table
from hemaml.core.task import Fold, Outer
from hemaml.data.splits import KIND_IN_WORDS, parts_of, split_kind, unbalanced

MOST_SPLITS = 3
"""Shown; the split's artifact has all."""
MOST_TOLD = 6


def split_table(splits: Sequence[Fold | Outer], classes: Sequence[str]) -> list[str]:
    """Lines of Markdown: how the split was made, then a row a part with its images and groups.

    Args:
        splits: As a run uses them.
        classes: Names of the data's labels where it classifies images; empty where not.
    """
    grouped = any(part.groups for part in parts_of(splits[0]).values())
    lines = [
        f"**Split.** {KIND_IN_WORDS[split_kind(splits)]}",
        "",
    ]
    rows: list[Sequence[object]] = []
    for index, split in enumerate(splits[:MOST_SPLITS]):
        for name, part in parts_of(split).items():
            label = f"{index}: {name}" if len(splits) > 1 else name
            rows.append((label, len(part), _groups(part), _classes(part, classes)))
    if len(splits) > MOST_SPLITS:
        rows.append((f"and {len(splits) - MOST_SPLITS} more", "", "", ""))
    by_class = f"images by class{' (of groups)' if grouped else ''}"
    lines += markdown_table(["part", "images", "groups", by_class], rows)
    told = unbalanced(splits)
    if told:
        more = f"; and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
        lines += [
            "",
            f"**Not balanced**, as far as groups allow: {'; '.join(told[:MOST_TOLD])}{more}.",
        ]
    return lines


def _groups(part: Dataset) -> str:
    return str(len(set(part.groups))) if part.groups else "unknown"


def _classes(part: Dataset, classes: Sequence[str]) -> str:
    images = Counter(part.labels)
    groups = Counter(label for label, _ in set(zip(part.labels, part.groups, strict=False)))
    told = []
    for label in sorted(images):
        name = classes[label] if label < len(classes) else f"type {label}"
        told.append(f"{name} {images[label]}{f' ({groups[label]})' if groups else ''}")
    return ", ".join(told)
