"""Reader of any tree with one folder of images a class."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from hemaml.core.dataset import Dataset
from hemaml.core.types import Frozen
from hemaml.data.labelled_images import (
    Listing,
    list_class_folders,
    read_labelled,
    read_table,
    subfolders,
    verify_labelled,
)
from hemaml.data.problems import Problem
from hemaml.data.reading import Reader, dataset_root


class ClassFolders(Frozen):
    """The `data:` section of this reader.

    An item's id is the path of its image below `root`, without suffix: `CLL/sj-05-6124_1`.
    """

    root: Path = Field(description="Folder of the data; relative paths are below HEMAML_DATA.")
    classes: dict[str, tuple[str, ...]] | None = Field(
        default=None,
        description="Class to its folders, in index order; default: each folder is a class.",
        min_length=2,
    )
    table: Path | None = Field(
        default=None, description="CSV below root with the columns id and group of all images."
    )
    parts: bool = Field(
        default=False, description="The table has a column part, too: the official parts."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        counted = Counter(f for folders in (self.classes or {}).values() for f in folders)
        twice = [folder for folder, count in counted.items() if count > 1]
        if twice:
            raise ValueError(f"a folder belongs to one class, but got {twice} more than once")
        if self.parts and self.table is None:
            raise ValueError("`parts: true` needs a `table:` that names them, but there is none")
        return self


def read(spec: ClassFolders) -> Dataset:
    """The data set, named after its folder.

    Raises:
        ConfigError: There is no such folder.
        DataError: A folder, file or row is missing or bad.
    """
    classes, listing = _listing(spec)
    return read_labelled(listing.root.name, classes, listing)


def verify(spec: ClassFolders) -> list[Problem]:
    """Every bad file and folder, images without row and rows without image as errors."""
    return verify_labelled(*_listing(spec))


def _listing(spec: ClassFolders) -> tuple[tuple[str, ...], Listing]:
    root = dataset_root(spec.root, default="")
    classes = spec.classes or {name: (name,) for name in subfolders(root)}
    folders = {name: index for index, names in enumerate(classes.values()) for name in names}
    listing = list_class_folders(root, folders, nested=True)
    if spec.table:
        _join_table(spec, listing, root / spec.table)
    return tuple(classes), listing


def _join_table(spec: ClassFolders, listing: Listing, path: Path) -> None:
    """Gives each item its group and part; an image or a row without partner is a fault."""
    columns = ("id", "group", "part") if spec.parts else ("id", "group")
    faults = len(listing.faults)
    found = read_table(listing, path, columns)
    if not found and len(listing.faults) > faults:
        return  # no table: to name each image would hide the reason
    rows = {row["id"]: row for row in found}
    for name, count in Counter(row["id"] for row in found).items():
        if count > 1:
            rule, action = "ids must be unique", "Remove the others."
            listing.fault(path.name, rule, f"{count} rows have id {name!r}", action)
    for index, item in enumerate(listing.items):
        row = rows.pop(item.id, None)
        if row is None:
            rule, told = f"each image must have a row in {path.name}", f"none has id {item.id!r}"
            listing.fault(item.file, rule, told, "Add the row.")
        else:
            part = row.get("part", "")
            listing.items[index] = replace(item, group=row["group"], part=part)
    for name in rows:
        rule, told = "each row must have an image", f"there is none with id {name!r}"
        listing.fault(path.name, rule, told, "Remove the row, or add the image.")


reader = Reader(ClassFolders, read, verify)
