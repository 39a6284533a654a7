"""Image files with one class each to a `Dataset`: shared by the readers of such layouts."""

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hemaml.core.dataset import Dataset
from hemaml.core.errors import DataError
from hemaml.data.lazy_images import FileImages, image_files
from hemaml.data.problems import BadFile, Problem, raise_first

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")
IGNORED = ("Thumbs.db", "desktop.ini")
"""Left by file managers, as are names that begin with a dot."""


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """One image file.

    Attributes:
        id: Name of the item, unique in the data set.
        file: Path relative to the root of the data set, with slashes.
        label: Class index.
        group: Name of patient, case or slide, or "" where unknown.
        part: Name of the official part, or "" where there is none.
    """

    id: str
    file: str
    label: int
    group: str = ""
    part: str = ""


@dataclass(slots=True)
class Listing:
    """What a walk through a data set's folders found, before any image is opened."""

    root: Path
    items: list[LabelledFile] = field(default_factory=list)
    faults: list[BadFile] = field(default_factory=list)

    def fault(self, file: str, rule: str, found: str, action: str) -> None:
        """Notes a fault."""
        self.faults.append(BadFile(file, rule, found, action))


def read_labelled(name: str, classes: Sequence[str], listing: Listing) -> Dataset:
    """The data set, items in order of their ids; groups and parts are set where all items have one.

    Images are decoded when asked for; their digests are taken here, once a file.

    Raises:
        DataError: A file is bad, a class has no images, or there are none at all: names the first
            fault and counts the others.
    """
    check_ids(listing)
    _check_classes(classes, listing)
    raise_first(listing.faults)
    items = sorted(listing.items, key=lambda item: item.id)
    files, faults = image_files(listing.root, [item.file for item in items])
    raise_first(faults)
    return Dataset(
        name=name,
        classes=tuple(classes),
        ids=tuple(item.id for item in items),
        images=FileImages(listing.root, tuple(files)),
        digests=tuple(
            labelled_digest(f.digest, i.label) for f, i in zip(files, items, strict=True)
        ),
        labels=tuple(item.label for item in items),
        groups=tuple(i.group for i in items) if all(i.group for i in items) else (),
        parts=tuple(i.part for i in items) if all(i.part for i in items) else (),
        image_digests=tuple(file.digest for file in files),
        source=listing.root.name,
    )


def verify_labelled(classes: Sequence[str], listing: Listing) -> list[Problem]:
    """Every fault of the listing and every file that does not decode; remembers nothing."""
    check_ids(listing)
    _check_classes(classes, listing)
    _, faults = image_files(listing.root, [i.file for i in listing.items], remembered=False)
    return [fault.problem for fault in [*listing.faults, *faults]]


def labelled_digest(image_digest: str, label: int) -> str:
    """Hex digest of an image and its class."""
    return hashlib.blake2b(f"{image_digest}|{label}".encode(), digest_size=16).hexdigest()


def list_class_folders(root: Path, folders: Mapping[str, int], *, nested: bool = False) -> Listing:
    """The images of one folder a class; ids are paths below `root` without suffix.

    Faults are folders that are absent, empty or unknown, and files that are no images.

    Args:
        root: Folder of the data set; its own files and hidden folders do not count.
        folders: Folder name to class index.
        nested: Whether images in folders below a class folder count; else those are unknown.
    """
    listing = Listing(root)
    expected = f"folders must be among {', '.join(sorted(folders))}"
    for name in subfolders(root):
        if name not in folders:
            action = "Take it out of the data set, or correct its name."
            listing.fault(name, expected, f"{name!r} is another", action)
    for name, label in folders.items():
        for file in list_images(listing, name, nested=nested):
            listing.items.append(LabelledFile(str(Path(file).with_suffix("")), file, label))
    return listing


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def list_images(listing: Listing, folder: str, *, nested: bool = False) -> list[str]:
    """Image files of a folder below the root, as paths below the root, sorted.

    Notes as faults: the folder is absent or has no images; other files; other folders unless
    `nested`.
    """
    path = listing.root / folder
    if not path.is_dir():
        listing.fault(folder, "each class folder must exist", "there is none", "Add the folder.")
        return []
    files: list[str] = []
    with os.scandir(path) as scanned:
        entries = sorted(scanned, key=lambda entry: entry.name)
    for entry in entries:
        name = f"{folder}/{entry.name}"
        if entry.name.startswith(".") or entry.name in IGNORED:
            continue
        if entry.is_dir() and nested:
            files.extend(list_images(listing, name, nested=True))
        elif entry.is_dir():
            rule = "a class folder must hold images alone"
            listing.fault(name, rule, "it is a folder", "Take it out of the data set.")
        elif Path(entry.name).suffix.lower() not in SUFFIXES:
            rule = f"images must end in {', '.join(SUFFIXES)}"
            listing.fault(name, rule, "it does not", "Take it out of the data set.")
        else:
            files.append(name)
    if not files:
        rule, action = "a class folder must hold images", "Add images, or remove the folder."
        listing.fault(folder, rule, "there are none", action)
    return files


def read_table(listing: Listing, path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a csv with the given columns, all filled; others and a missing csv become faults."""
    if not path.is_file():
        action = "Put the csv there, or leave it out of the `data:` section."
        listing.fault(path.name, "the table must exist", f"there is none at {path}", action)
        return []
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        missing = [column for column in columns if column not in (table.fieldnames or ())]
        if missing:
            rule = f"a table must have the columns {', '.join(columns)}"
            action = "Correct its first row."
            listing.fault(path.name, rule, f"its first row is {table.fieldnames}", action)
            return []
        rows = [{column: (row[column] or "").strip() for column in columns} for row in table]
    for row in rows:
        if not all(row.values()):
            rule = "rows must have no gaps"
            listing.fault(path.name, rule, f"one is {row}", "Correct the row.")
    return [row for row in rows if all(row.values())]


def check_ids(listing: Listing) -> None:
    """Notes items that share an id as faults."""
    counted = Counter(item.id for item in listing.items)
    for item in listing.items:
        if counted[item.id] > 1:
            rule, action = "images must differ in more than their suffix", "Rename one of them."
            listing.fault(item.file, rule, f"{counted[item.id]} are called {item.id!r}", action)


def _check_classes(classes: Sequence[str], listing: Listing) -> None:
    if not listing.items and not listing.faults:
        raise DataError(
            f"a data set must hold images, but {listing.root} has none in the expected folders. "
            "Set `data.root` to the folder that holds them."
        )
    present = {item.label for item in listing.items}
    for index, name in enumerate(classes):
        if index not in present and not listing.faults:
            rule, action = "each class must have images", "Add some, or correct `data.root`."
            listing.fault(name, rule, f"class {name!r} has none", action)
