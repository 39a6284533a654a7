"""Reader of C-NMC 2019: single cells of bone marrow on black, 450 x 450 pixels.

The subject is what may not straddle a split. Names are `UID_<subject>_<image>_<cell>_<class>.bmp`,
where healthy subjects begin with H; once it is written h.
Source: R. Gupta, A. Gupta: ALL Challenge dataset of ISBI 2019 (C-NMC 2019). The Cancer Imaging
Archive (2019). https://doi.org/10.7937/tcia.2019.dc64i46r
"""

import os
import re
from pathlib import Path

from pydantic import Field

from hemaml.core.dataset import Dataset
from hemaml.core.types import Frozen
from hemaml.data.labelled_images import (
    LabelledFile,
    Listing,
    list_images,
    read_labelled,
    read_table,
    subfolders,
    verify_labelled,
)
from hemaml.data.problems import Problem
from hemaml.data.reading import Reader, dataset_root

CLASSES = ("healthy", "leukemia")
LABELS = {"hem": 0, "all": 1}
TEST_COLUMNS = ("Patient_ID", "new_names", "labels")
NAME = re.compile(r"UID_(H?\d+)_\d+_\d+_(all|hem)\.bmp", re.IGNORECASE)
RULE = "a name must be UID_<subject>_<image>_<cell>_<all|hem>.bmp, healthy subjects with H"


class CNmc(Frozen):
    """The `data:` section of this reader."""

    root: Path | None = Field(
        default=None, description="Folder of fold_0 to fold_2; default C-NMC below HEMAML_DATA."
    )
    test_table: Path | None = Field(
        default=None,
        description="CSV of the preliminary test set (Patient_ID, new_names, labels), relative to "
        "root: it becomes the held-out part.",
    )
    test_images: Path | None = Field(
        default=None, description="Its images; default: beside the CSV, named without _labels.csv."
    )


def read(spec: CNmc) -> Dataset:
    """The data set; groups are subjects, parts the official folds and `test`.

    Raises:
        ConfigError: There is no such folder.
        DataError: A file, folder or row is missing or bad.
    """
    return read_labelled("c_nmc", CLASSES, _listing(spec))


def verify(spec: CNmc) -> list[Problem]:
    """Every bad file, folder and row as an error; folders that are not read as warnings."""
    listing = _listing(spec)
    used = {Path(item.file).parts[0] for item in listing.items}
    unread = [n for n in subfolders(listing.root) if not _is_fold(n) and n not in used]
    rule, found = "folders should be fold_0, fold_1 and so on", "it is not read"
    warnings = [Problem(name, rule, found, severity="warning") for name in unread]
    return verify_labelled(CLASSES, listing) + warnings


def subject_of(name: str) -> tuple[str, int] | None:
    """Subject in one spelling (`H3`) and class of a file name, or None for an odd name."""
    match = NAME.fullmatch(name)
    if match is None:
        return None
    subject, label = match[1].upper(), LABELS[match[2].lower()]
    return (subject, label) if subject.startswith("H") == (label == 0) else None


def _listing(spec: CNmc) -> Listing:
    root = dataset_root(spec.root, default="C-NMC")
    listing = Listing(root)
    for fold in filter(_is_fold, subfolders(root)):
        _list_fold(listing, fold)
    if spec.test_table:
        table = root / spec.test_table
        images = spec.test_images or table.with_name(table.stem.removesuffix("_labels"))
        _list_test(listing, table, root / images)
    return listing


def _is_fold(name: str) -> bool:
    return re.fullmatch(r"fold_\d+", name) is not None


def _list_fold(listing: Listing, fold: str) -> None:
    for name in subfolders(listing.root / fold):
        folder = f"{fold}/{name}"
        if name not in LABELS:
            action = "Take it out of the data set, or correct its name."
            listing.fault(folder, "a fold must have the folders all and hem", "it is none", action)
            continue
        for file in list_images(listing, folder):
            found = subject_of(Path(file).name)
            if found is None or found[1] != LABELS[name]:
                told = f"it is {Path(file).name!r} in folder {name!r}"
                listing.fault(file, RULE, told, "Import the data set again.")
                continue
            item = LabelledFile(str(Path(file).with_suffix("")), file, found[1], found[0], fold)
            listing.items.append(item)


def _list_test(listing: Listing, table: Path, folder: Path) -> None:
    """The preliminary test set: images have new names, the table has the old ones and labels."""
    relative = Path(os.path.relpath(folder, listing.root)).as_posix()
    images = {Path(file).name: file for file in list_images(listing, relative)}
    for row in read_table(listing, table, TEST_COLUMNS):
        name, patient = row["new_names"], row["Patient_ID"]
        file, found = images.pop(name, None), subject_of(patient)
        if file is None:
            told = f"there is no {name!r} in {relative}, or another row has it"
            listing.fault(table.name, "each row must have an image", told, "Correct the row.")
        elif found is None or str(found[1]) != row["labels"]:
            told = f"the row of {name!r} has {patient!r} with label {row['labels']!r}"
            rule = f"{RULE}, and its label 1 for all, 0 for hem"
            listing.fault(table.name, rule, told, "Correct the row.")
        else:
            stem = Path(name).stem
            listing.items.append(LabelledFile(f"test/{stem}", file, found[1], found[0], "test"))
    for file in images.values():
        rule = f"each test image must have a row in {table.name}"
        listing.fault(file, rule, "it has none", "Add the row, or remove the image.")


reader = Reader(CNmc, read, verify)
