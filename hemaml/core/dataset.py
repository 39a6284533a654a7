"""A labelled image set, whatever the task, and its identity by content."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, overload

from hemaml.core.cache import array_digest
from hemaml.core.types import UInt8Array

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Chosen(Sequence[T]):
    """Some items of a sequence, looked up when asked for: an image is then read from its file."""

    source: Sequence[T]
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, position: int) -> T: ...
    @overload
    def __getitem__(self, position: slice) -> "Chosen[T]": ...
    def __getitem__(self, position: int | slice) -> "T | Chosen[T]":
        if isinstance(position, slice):
            return Chosen(self.source, self.indices[position])
        return self.source[self.indices[position]]


@dataclass(frozen=True, slots=True)
class Dataset:
    """N images with their targets.

    Attributes:
        name: Short name, shown in tables and MLflow (`segmentation_wbc-1`).
        classes: Names of the target's classes, in index order; part of the label set's identity.
        ids: One name an image, unique, the same on every machine (never an absolute path).
        images: N arrays of H x W x 3, uint8, RGB; sizes may differ between images. Large sets
            decode an image each time it is asked for: go through them once, in order.
        masks: N arrays of H x W, uint8 class indices; empty for classification sets.
        labels: N class indices that a split stratifies on (for segmentation: the cell type);
            empty where unknown.
        groups: N names of the patient, case or slide; empty where the data has none.
        parts: N names of the official parts (`fold_0`, `test`); empty where the data has none.
        drawn: N masks of H x W, uint8 class indices, that somebody drew: an input that a model may
            be given beside the image, not its target; empty where there are none.
        image_digests: N hex digests of the image content alone: keys of what is cached by image.
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
    parts: tuple[str, ...] = ()
    drawn: Sequence[UInt8Array] = ()
    image_digests: tuple[str, ...] = ()
    source: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def digest(self) -> str:
        """Hex digest of the classes and the content of all items, in any order."""
        lines = [*self.classes, *sorted(self.digests)]
        return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()

    @property
    def is_in_memory(self) -> bool:
        """Whether all arrays are held, and none is decoded when asked for."""
        return all(isinstance(kept, tuple) for kept in (self.images, self.masks, self.drawn))

    def contents(self) -> tuple[str, ...]:
        """Hex digests of the images alone; taken here, image by image, where the reader did not."""
        return self.image_digests or tuple(array_digest(image) for image in self.images)

    def inputs(self) -> "Dataset":
        """The items without their targets: no labels, no masks, digests of the images alone."""
        contents = self.contents()
        return replace(self, masks=(), labels=(), digests=contents, image_digests=contents)

    def subset(self, indices: Sequence[int]) -> "Dataset":
        """The items at `indices`, in that order; arrays are shared, not copied."""
        chosen = tuple(indices)

        def take(values: tuple[T, ...]) -> tuple[T, ...]:
            return tuple(values[i] for i in chosen) if values else ()

        def view(values: Sequence[T]) -> Sequence[T]:
            return take(values) if isinstance(values, tuple) else Chosen(values, chosen)

        return replace(
            self,
            ids=take(self.ids),
            images=view(self.images),
            digests=take(self.digests),
            masks=view(self.masks),
            drawn=view(self.drawn),
            labels=take(self.labels),
            groups=take(self.groups),
            parts=take(self.parts),
            image_digests=take(self.image_digests),
        )
