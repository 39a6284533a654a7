"""A labelled image set, whatever the task, and its identity by content."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from hemaml.core.types import UInt8Array

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Dataset:
    """N images with their targets.

    Attributes:
        name: Short name, shown in tables and MLflow (`segmentation_wbc-1`).
        classes: Names of the target's classes, in index order; part of the label set's identity.
        ids: One name an image, unique, the same on every machine (never an absolute path).
        images: N arrays of H x W x 3, uint8, RGB; sizes may differ between images.
        masks: N arrays of H x W, uint8 class indices; empty for classification sets.
        labels: N class indices that a split stratifies on (for segmentation: the cell type);
            empty where unknown.
        groups: N names of the patient, case or slide; empty where the data has none.
        digests: N hex digests of image and target content.
        source: Where it came from, for MLflow (a folder name or generator call, no secrets).
    """

    name: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    images: Sequence[UInt8Array]
    digests: tuple[str, ...]
    masks: Sequence[UInt8Array] = ()
    labels: tuple[int, ...] = ()
    groups: tuple[str, ...] = ()
    source: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def digest(self) -> str:
        """Hex digest of the classes and the content of all items, in any order."""
        lines = [*self.classes, *sorted(self.digests)]
        return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()

    def subset(self, indices: Sequence[int]) -> "Dataset":
        """The items at `indices`, in that order; arrays are shared, not copied."""

        def take(values: Sequence[T]) -> tuple[T, ...]:
            return tuple(values[i] for i in indices) if len(values) else ()

        return replace(
            self,
            ids=take(self.ids),
            images=take(self.images),
            digests=take(self.digests),
            masks=take(self.masks),
            labels=take(self.labels),
            groups=take(self.groups),
        )
