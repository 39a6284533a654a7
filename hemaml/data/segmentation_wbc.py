"""Reader of `segmentation_WBC`: white blood cells with masks of cytoplasm and nucleus, or types.

Source: X. Zheng, Y. Wang, G. Wang, J. Liu: Fast and robust segmentation of white blood cell images
by self-supervised learning. Micron 107 (2018) 55-71. https://github.com/zxaoyou/segmentation_WBC
"""

import csv
from pathlib import Path
from typing import Literal

from pydantic import Field

from hemaml.core.dataset import Dataset
from hemaml.core.types import Frozen
from hemaml.data.decode import stray_greys
from hemaml.data.pairs import Layout, Pair, load_pairs, read_pairs, typed
from hemaml.data.problems import BadFile, Problem, raise_first
from hemaml.data.reading import Reader, dataset_root

CLASSES = ("background", "cytoplasm", "nucleus")
CELL_TYPES = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
"""Names of `Dataset.labels`; the class csv numbers them from 1, labels from 0.

The authors gave some of these labels themselves and had none of them checked by experts.
"""

LEVELS = {0: 0, 128: 1, 255: 2}
# Five masks of data set 2 (034, 035, 047, 050, 076) hold stray greys as far as 50 from a level.
# 64 is half the distance of the levels: every grey is snapped to the nearest.
TOLERANCE = 64


class SegmentationWbc(Frozen):
    """The `data:` section of this reader."""

    set: Literal[1, 2] = Field(
        description="1: 300 images of 88 to 120 pixels (JTSC); 2: 100 of 300 pixels (CellaVision)."
    )
    target: Literal["masks", "types"] = Field(
        default="masks",
        description="What models learn: the masks; or the cell types, with the masks as an input.",
    )
    root: Path | None = Field(
        default=None, description="Folder; default segmentation_WBC, relative below HEMAML_DATA."
    )


def read(spec: SegmentationWbc) -> Dataset:
    """One of the two data sets; labels are indices into `CELL_TYPES`.

    Raises:
        ConfigError: There is no such folder.
        DataError: A file is missing or bad.
    """
    layout = _layout(spec)
    pairs, faults = _list_pairs(spec, layout.root)
    raise_first(faults)
    found = read_pairs(pairs, layout)
    return found if spec.target == "masks" else typed(found, CELL_TYPES)


def verify(spec: SegmentationWbc) -> list[Problem]:
    """Every bad file as an error; masks with stray greys, which a read snaps, as warnings."""
    layout = _layout(spec)
    pairs, faults = _list_pairs(spec, layout.root)
    items, unreadable = load_pairs(pairs, layout)
    strays = [_stray_problem(item.pair.mask, layout.root) for item in items]
    errors = [fault.problem for fault in [*faults, *unreadable]]
    return errors + [problem for problem in strays if problem is not None]


def _layout(spec: SegmentationWbc) -> Layout:
    root = dataset_root(spec.root, default="segmentation_WBC")
    return Layout(f"segmentation_wbc-{spec.set}", root, CLASSES, LEVELS, TOLERANCE)


def _list_pairs(spec: SegmentationWbc, root: Path) -> tuple[list[Pair], list[BadFile]]:
    folder = root / f"Dataset {spec.set}"
    table = root / f"Class Labels of Dataset {spec.set}.csv"
    if not table.is_file():
        rule, action = "the class csv must exist", "Import the data set again."
        return [], [BadFile(table.name, rule, f"there is none in {root}", action)]
    labels, faults = _read_labels(table)
    images = {path.stem: path for path in folder.glob("*.bmp")}
    rule = f"the images and the rows of {table.name!r} must be the same"
    for name in sorted(labels.keys() ^ images.keys()):
        found = "there is no such image" if name in labels else "the image has no row"
        action = "Import the data set again."
        faults.append(BadFile(f"{folder.name}/{name}.bmp", rule, found, action))
    return [
        Pair(name, images[name], folder / f"{name}.png", label=labels[name])
        for name in sorted(images.keys() & labels.keys())
    ], faults


def _read_labels(table: Path) -> tuple[dict[str, int], list[BadFile]]:
    """Cell type by id ("001"): the csv has ids without zeros, and its headers vary."""
    labels: dict[str, int] = {}
    faults = []
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    for row in rows[1:]:
        match row:
            case [number, ("1" | "2" | "3" | "4" | "5") as kind, *_] if number.isdecimal():
                labels[f"{int(number):03d}"] = int(kind) - 1
            case _ if any(row):
                rule = "a row must be an image number and a class from 1 to 5"
                faults.append(BadFile(table.name, rule, f"one is {row}", "Correct the row."))
    return labels, faults


def _stray_problem(mask: Path, root: Path) -> Problem | None:
    strays = stray_greys(mask, LEVELS)
    if not strays:
        return None
    found = ", ".join(f"{grey} ({count} pixels)" for grey, count in strays.items())
    return Problem(
        mask.relative_to(root).as_posix(),
        f"greys should be among {sorted(LEVELS)}",
        f"it has {found}, read as the nearest",
        severity="warning",
    )


reader = Reader(SegmentationWbc, read, verify)
