"""Reader of `PBC`: single peripheral blood cells of healthy people, about 360 x 363 pixels.

Source: A. Acevedo, A. Merino, S. Alferez, A. Molina, L. Boldu, J. Rodellar: A dataset of
microscopic peripheral blood cell images for development of automatic recognition systems. Data in
Brief 30 (2020) 105474. https://doi.org/10.17632/snkd93bnjr.1
"""

from pathlib import Path

from pydantic import Field

from hemaml.core.dataset import Dataset
from hemaml.core.types import Frozen
from hemaml.data.labelled_images import Listing, list_class_folders, read_labelled, verify_labelled
from hemaml.data.problems import Problem
from hemaml.data.reading import Reader, dataset_root

CLASSES = (
    "basophil",
    "eosinophil",
    "erythroblast",
    "ig",
    "lymphocyte",
    "monocyte",
    "neutrophil",
    "platelet",
)
"""Names of the folders; `ig` are immature granulocytes."""


class Pbc(Frozen):
    """The `data:` section of this reader."""

    root: Path | None = Field(
        default=None, description="Folder; default PBC, relative below HEMAML_DATA."
    )


def read(spec: Pbc) -> Dataset:
    """The data set; it has no groups.

    Raises:
        ConfigError: There is no such folder.
        DataError: A folder or file is missing or bad.
    """
    return read_labelled("pbc", CLASSES, _listing(spec))


def verify(spec: Pbc) -> list[Problem]:
    """Every bad file and folder as an error."""
    return verify_labelled(CLASSES, _listing(spec))


def _listing(spec: Pbc) -> Listing:
    folders = {name: index for index, name in enumerate(CLASSES)}
    return list_class_folders(dataset_root(spec.root, default="PBC"), folders)


reader = Reader(Pbc, read, verify)
