"""Image files with their mask files to a `Dataset`: shared by the readers of such layouts."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hemaml.core.cache import array_digest
from hemaml.core.dataset import Dataset
from hemaml.core.settings import cache_root
from hemaml.core.types import UInt8Array
from hemaml.data.decode import DECODE_VERSION, decode_image, decode_mask
from hemaml.data.digests import FileDigests, file_stamp
from hemaml.data.problems import BadFile, raise_first


@dataclass(frozen=True, slots=True)
class Pair:
    """One image file and its mask file.

    Attributes:
        id: Name of the item, unique in the data set.
        image: The image file.
        mask: The mask file.
        label: Class index that splits stratify on, or None where unknown.
        group: Name of patient, case or slide, or "" where unknown.
    """

    id: str
    image: Path
    mask: Path
    label: int | None = None
    group: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the pairs of a data set share.

    Attributes:
        name: Name of the data set.
        root: Its folder; messages name files relative to it.
        classes: Names of the mask's classes.
        levels: Grey level of a mask to class index.
        tolerance: Greatest distance between a grey and the level that it is snapped to.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    levels: Mapping[int, int]
    tolerance: int


@dataclass(frozen=True, slots=True)
class Item:
    """A decoded pair: image H x W x 3, mask H x W of class indices, digest of image and targets."""

    pair: Pair
    image: UInt8Array
    mask: UInt8Array
    digest: str


def read_pairs(pairs: Sequence[Pair], layout: Layout) -> Dataset:
    """The data set of all pairs, in order of their ids.

    Labels and groups are set where every pair has one.

    Raises:
        DataError: There are no pairs, or one is bad: names the first and counts the others.
    """
    items, faults = load_pairs(sorted(pairs, key=lambda pair: pair.id), layout)
    raise_first(faults)
    labels = [item.pair.label for item in items if item.pair.label is not None]
    groups = [item.pair.group for item in items if item.pair.group]
    return Dataset(
        name=layout.name,
        classes=layout.classes,
        ids=tuple(item.pair.id for item in items),
        images=tuple(item.image for item in items),
        masks=tuple(item.mask for item in items),
        labels=tuple(labels) if len(labels) == len(items) else (),
        groups=tuple(groups) if len(groups) == len(items) else (),
        digests=tuple(item.digest for item in items),
        source=layout.root.name,
    )


def typed(data: Dataset, types: Sequence[str]) -> Dataset:
    """A segmentation set as one of classification by its labels; masks become an input, `drawn`.

    Args:
        data: Images with masks and labels.
        types: Names of the labels.
    """
    name = f"{data.name}-types"
    return replace(data, name=name, classes=tuple(types), masks=(), drawn=data.masks)


def load_pairs(pairs: Sequence[Pair], layout: Layout) -> tuple[list[Item], list[BadFile]]:
    """Decodes all pairs; returns the good ones, and what is wrong with the others."""
    digests = FileDigests(cache_root(), layout.root)
    items, faults = [], []
    for pair in pairs:
        try:
            items.append(_load(pair, layout, digests))
        except BadFile as fault:
            faults.append(fault)
    digests.save()
    return items, faults


def item_digest(image: UInt8Array, mask: UInt8Array | None, label: int | None) -> str:
    """Hex digest of an image and its targets, by content alone."""
    parts = [array_digest(image), "" if mask is None else array_digest(mask), str(label)]
    return hashlib.blake2b("|".join(parts).encode(), digest_size=16).hexdigest()


def _load(pair: Pair, layout: Layout, digests: FileDigests) -> Item:
    files = pair.image, pair.mask
    names = [path.relative_to(layout.root).as_posix() for path in files]
    for path, name in zip(files, names, strict=True):
        if not path.is_file():
            action = "Add the file, or take its partner out of the data set."
            raise BadFile(name, "each image must have a mask", "there is no such file", action)
    stamp = file_stamp(*files)
    image = decode_image(pair.image, name=names[0])
    mask = decode_mask(pair.mask, layout.levels, tolerance=layout.tolerance, name=names[1])
    if image.shape[:2] != mask.shape:
        raise BadFile(
            names[1],
            f"a mask must have the sides of its image, {image.shape[0]} x {image.shape[1]}",
            f"it has {mask.shape[0]} x {mask.shape[1]}",
            "Export the mask again at the image's size.",
        )
    key = f"{DECODE_VERSION}|{names}|{layout.levels}|{layout.tolerance}|{pair.label}"
    digest = digests.digest(key, stamp, lambda: item_digest(image, mask, pair.label))
    return Item(pair, image, mask, digest)
