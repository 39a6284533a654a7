"""Reader of `malignant_lymphoma`: sections of lymph nodes, one folder each for CLL, FL and MCL.

A file is called `<slide>_<number>` with any suffix of an image; slides that differ in a last `-R3`
or `-R4` alone are of one case. The case is what may not straddle a split, since all slides of a
case show one patient's tissue. Works for the original TIFFs of 1388 x 1040 pixels as for copies of
any size.
Source: L. Shamir, N. Orlov, D. M. Eckley, T. J. Macura, I. G. Goldberg: IICBU 2008, a proposed
benchmark suite for biological image analysis. Medical & Biological Engineering & Computing 46
(2008) 943-947. https://doi.org/10.1007/s11517-008-0380-5
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from hemaml.core.dataset import Dataset
from hemaml.core.types import Frozen
from hemaml.data.labelled_images import (
    LabelledFile,
    Listing,
    list_class_folders,
    read_labelled,
    verify_labelled,
)
from hemaml.data.problems import Problem
from hemaml.data.reading import Reader, dataset_root

CLASSES = ("CLL", "FL", "MCL")
NAME = re.compile(r"(?P<slide>(?P<case>.+?)(-R\d+)?)_\d+")


class MalignantLymphoma(Frozen):
    """The `data:` section of this reader."""

    root: Path | None = Field(
        default=None,
        description="Folder of CLL, FL and MCL; default malignant_lymphoma, below HEMAML_DATA.",
    )
    group: Literal["case", "slide"] = Field(
        default="case", description="What splits keep together: a case has one slide or more."
    )


def read(spec: MalignantLymphoma) -> Dataset:
    """The data set; groups are cases, or slides.

    Raises:
        ConfigError: There is no such folder.
        DataError: A file, folder or name is missing or bad.
    """
    return read_labelled("malignant_lymphoma", CLASSES, _listing(spec))


def verify(spec: MalignantLymphoma) -> list[Problem]:
    """Every bad file, folder and name as an error."""
    return verify_labelled(CLASSES, _listing(spec))


def _listing(spec: MalignantLymphoma) -> Listing:
    folders = {name: index for index, name in enumerate(CLASSES)}
    listing = list_class_folders(dataset_root(spec.root, default="malignant_lymphoma"), folders)
    listing.items = [_grouped(listing, item, spec.group) for item in listing.items]
    return listing


def _grouped(listing: Listing, item: LabelledFile, group: str) -> LabelledFile:
    found = NAME.fullmatch(Path(item.file).stem)
    if found is None:
        rule = "a name must be <slide>_<number>, as in sj-05-6124-R3_001"
        listing.fault(item.file, rule, "it is not", "Correct the name: it says whose tissue it is.")
        return item
    return replace(item, group=found[group])


reader = Reader(MalignantLymphoma, read, verify)
