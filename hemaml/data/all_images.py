"""Reader of `ALL_images`: blood smears of acute lymphoblastic leukemia, 224 x 224 pixels.

The set names no patients, so that images of one patient may lie on both sides of any split.
Source: M. Aria, M. Ghaderzadeh, D. Bashash, H. Abolghasemi, F. Asadi, A. Hosseini: Acute
Lymphoblastic Leukemia (ALL) image dataset. Kaggle (2021). https://doi.org/10.34740/KAGGLE/DSV/2175623
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from hemaml.core.dataset import Dataset
from hemaml.core.types import Frozen
from hemaml.data.labelled_images import Listing, list_class_folders, read_labelled, verify_labelled
from hemaml.data.problems import Problem
from hemaml.data.reading import Reader, dataset_root

FOLDERS = ("Benign", "Early", "Pre", "Pro")
BINARY = ("healthy", "leukemia")
FOUR = ("benign", "early", "pre", "pro")


class AllImages(Frozen):
    """The `data:` section of this reader."""

    classes: Literal["binary", "four"] = Field(
        default="binary", description="binary: Benign against the rest; four: one a folder."
    )
    root: Path | None = Field(
        default=None, description="Folder; default ALL_images, relative below HEMAML_DATA."
    )


def read(spec: AllImages) -> Dataset:
    """The data set; it has no groups.

    Raises:
        ConfigError: There is no such folder.
        DataError: A folder or file is missing or bad.
    """
    return read_labelled(f"all_images-{spec.classes}", _classes(spec), _listing(spec))


def verify(spec: AllImages) -> list[Problem]:
    """Every bad file and folder as an error."""
    return verify_labelled(_classes(spec), _listing(spec))


def _classes(spec: AllImages) -> tuple[str, ...]:
    return BINARY if spec.classes == "binary" else FOUR


def _listing(spec: AllImages) -> Listing:
    last = len(_classes(spec)) - 1
    folders = {name: min(index, last) for index, name in enumerate(FOLDERS)}
    return list_class_folders(dataset_root(spec.root, default="ALL_images"), folders)


reader = Reader(AllImages, read, verify)
