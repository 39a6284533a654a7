"""Reader of any folder of image files with mask files."""

import csv
from pathlib import Path, PurePosixPath
from typing import Self

from pydantic import Field, model_validator

from hemaml.core.dataset import Dataset
from hemaml.core.errors import DataError
from hemaml.core.types import Frozen
from hemaml.data.pairs import Layout, Pair, load_pairs, read_pairs
from hemaml.data.problems import BadFile, Problem, raise_first
from hemaml.data.reading import Reader, dataset_root


class ImageMaskPairs(Frozen):
    """The `data:` section of this reader.

    An item's id is the path of its image below the fixed part of `images`, without suffix: `a1` for
    `images/*.png`, `case3/images/a1` for `*/images/*.png`.
    """

    root: Path = Field(description="Folder of the data; relative paths are below HEMAML_DATA.")
    images: str = Field(default="images/*.png", description="Pattern of the images below root.")
    masks: str = Field(
        default="masks/{stem}.png",
        description="Mask below root; {stem}: name of the image without suffix, {id}: its id.",
    )
    levels: dict[str, int] = Field(
        description="Class to grey level of the masks; background first.", min_length=2
    )
    tolerance: int = Field(default=0, ge=0, description="Distance at which greys are snapped.")
    table: Path | None = Field(
        default=None, description="CSV below root with columns id and group, label or both."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        greys = sorted(self.levels.values())
        if len(set(greys)) < len(greys) or greys[0] < 0 or greys[-1] > 65535:
            raise ValueError(f"levels must be distinct greys in 0..65535, but got {greys}")
        for key, pattern in (("images", self.images), ("masks", self.masks)):
            if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
                raise ValueError(f"{key} must lie below root, but got {pattern!r}")
        if "{stem}" not in self.masks and "{id}" not in self.masks:
            raise ValueError(f"masks must contain {{stem}} or {{id}}, but got {self.masks!r}")
        return self


def read(spec: ImageMaskPairs) -> Dataset:
    """The data set, named after its folder; labels are numbered in order of their names.

    Raises:
        ConfigError: There is no such folder.
        DataError: No images, or a file or row is missing or bad.
    """
    layout = _layout(spec)
    pairs, faults = _list_pairs(spec, layout.root)
    raise_first(faults)
    return read_pairs(pairs, layout)


def verify(spec: ImageMaskPairs) -> list[Problem]:
    """Every bad file and every image without a row as errors."""
    layout = _layout(spec)
    pairs, faults = _list_pairs(spec, layout.root)
    _, unreadable = load_pairs(pairs, layout)
    return [fault.problem for fault in [*faults, *unreadable]]


def _layout(spec: ImageMaskPairs) -> Layout:
    root = dataset_root(spec.root, default="")
    index = {grey: number for number, grey in enumerate(spec.levels.values())}
    return Layout(root.name, root, tuple(spec.levels), index, spec.tolerance)


def _list_pairs(spec: ImageMaskPairs, root: Path) -> tuple[list[Pair], list[BadFile]]:
    images = [path for path in sorted(root.glob(spec.images)) if path.is_file()]
    if not images:
        raise DataError(
            f"data.images: the pattern must match image files, but {spec.images!r} matches none "
            f"in {root}. Correct `images:` or `root:`."
        )
    rows, faults = _read_table(root / spec.table) if spec.table else ({}, [])
    label_names = sorted({row["label"] for row in rows.values() if row.get("label")})
    base = _fixed_part(spec.images)
    pairs: dict[str, Pair] = {}
    for path in images:
        relative = PurePosixPath(path.relative_to(root).as_posix())
        name = str(relative.relative_to(base).with_suffix(""))
        row = rows.get(name, {})
        if name in pairs:
            found = f"{pairs[name].image.name} has the same id, {name!r}"
            rule, action = "ids must be unique", "Rename one, or narrow the pattern `images:`."
            faults.append(BadFile(str(relative), rule, found, action))
        elif spec.table and not row:
            rule, found = f"each image must have a row in {spec.table}", f"no row has id {name!r}"
            faults.append(BadFile(str(relative), rule, found, "Add the row."))
        else:
            mask = root / spec.masks.replace("{stem}", path.stem).replace("{id}", name)
            label = label_names.index(row["label"]) if row.get("label") else None
            pairs[name] = Pair(name, path, mask, label, row.get("group", ""))
    return list(pairs.values()), faults


def _fixed_part(pattern: str) -> PurePosixPath:
    """The folders of a pattern before the first that holds a wildcard."""
    fixed = PurePosixPath()
    for part in PurePosixPath(pattern).parts[:-1]:
        if any(sign in part for sign in "*?["):
            break
        fixed /= part
    return fixed


def _read_table(path: Path) -> tuple[dict[str, dict[str, str]], list[BadFile]]:
    """Rows by id, and rows with a gap: a value missing in a column that the table has."""
    rows: dict[str, dict[str, str]] = {}
    faults = []
    if not path.is_file():
        action = "Put the csv there, or leave `table:` out."
        return {}, [BadFile(path.name, "the table must exist", "there is none", action)]
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        columns = {"id", "group", "label"} & set(table.fieldnames or ())
        if "id" not in columns or len(columns) < 2:
            rule = "a table must have the columns id and group or label"
            found = f"it has {table.fieldnames}"
            return {}, [BadFile(path.name, rule, found, "Correct its first row.")]
        for row in table:
            kept = {column: (row[column] or "").strip() for column in columns}
            if not all(kept.values()) or kept["id"] in rows:
                rule, found = "rows must have unique ids and no gaps", f"one is {kept}"
                faults.append(BadFile(path.name, rule, found, "Correct the row."))
            rows[kept["id"]] = kept
    return rows, faults


reader = Reader(ImageMaskPairs, read, verify)
