"""Where a classifier of cells gets the masks of its images from, and how it carries that along.

A classifier is told by `segmentation`:

    none                     no mask: the whole image counts as cell
    ground_truth             the masks of the data set that somebody drew
    wbc_segmentation.NAME    a segmenter that each fold trains on its own training images and their
                             drawn masks, as in Algorithm 1 of the SMGNN paper
    models:/NAME@ALIAS       a registered segmenter
    runs:/ID, or ID          the segmenter that a run trained

Masks do not depend on what else is searched: a segmenter is trained once for a training part, and
predicts each image once. Both are kept in the cache.

A segmenter of a fold has its last step, learns from all of the training part and looks at nothing
else; its seed is that of the training part, so that all trials of a sweep see the same masks. What
a recorded one has learned from must not be scored: `hemaml.trial` sees to that.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from hemaml.core.cache import Cache, array_digest
from hemaml.core.dataset import Dataset
from hemaml.core.documents import canonical_json, validated
from hemaml.core.errors import ConfigError, DataError, UnknownName
from hemaml.core.identity import code_digest
from hemaml.core.objective import Context, load_objective, objective_names
from hemaml.core.seeding import derive_seed
from hemaml.core.space import Scalar
from hemaml.core.task import Fold
from hemaml.core.tracker import RUN, is_recorded
from hemaml.core.types import Arrays, Frozen, UInt8Array
from hemaml.ops.scores import segmentation_report
from hemaml.tasks.wbc_segmentation import BACKGROUND, CLASSES

NONE, DRAWN = "none", "ground_truth"
SEGMENTERS = "wbc_segmentation."
RUN_ID = re.compile(r"[0-9a-f]{32}")
CYTOPLASM, NUCLEUS = 1, 2


class SegmentationParams(Frozen):
    """Where masks come from; see the module."""

    segmentation: str = Field(
        default="wbc_segmentation.smgnn",
        description="none, ground_truth, wbc_segmentation.<model> (trained in the fold), "
        "models:/name@alias, runs:/id or a run's id.",
    )
    segmenters: dict[str, dict[str, Scalar]] = Field(
        default={},
        description="Parameters of segmenters that a fold trains, by their objective; the others "
        "have their defaults.",
    )

    @field_validator("segmentation")
    @classmethod
    def _as_uri(cls, value: str) -> str:
        """A bare run id with its prefix."""
        return f"{RUN}{value}" if RUN_ID.fullmatch(value) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        known = [name for name in objective_names() if name.startswith(SEGMENTERS)]
        value = self.segmentation
        if value not in (NONE, DRAWN, *known) and not is_recorded(value):
            other = ["models:/<name>@<alias>", "runs:/<id>"]
            raise ValueError(str(UnknownName("segmentation", value, [NONE, DRAWN, *known, *other])))
        for name in self.segmenters:
            if name not in known:
                raise ValueError(str(UnknownName("segmenter", name, known)))
        self.in_fold()
        return self

    def in_fold(self) -> Frozen | None:
        """All parameters of the segmenter that a fold trains; None where it trains none."""
        value = self.segmentation
        if not value.startswith(SEGMENTERS):
            return None
        given = self.segmenters.get(value, {})
        # An error of pydantic's own would seem to be one of the classifier's parameters.
        return validated(load_objective(value).params, given, f"segmenters.{value}")

    def in_force(self) -> dict[str, Any]:
        """Of segmenters, the one that a fold trains, with all its parameters; see `Frozen`."""
        own = self.in_fold()
        used = {} if own is None else {self.segmentation: own.in_force()}
        return super().in_force() | {"segmenters": used}


class WholeImage:
    """No segmenter: every pixel counts as cytoplasm."""

    kind = digest = NONE
    origin = "the whole image"

    def mask(self, image: UInt8Array) -> UInt8Array:
        """H x W ones."""
        return np.full(image.shape[:2], CYTOPLASM, np.uint8)

    def stored(self) -> Arrays:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class DrawnMasks:
    """Masks that somebody drew, for the images that have one.

    Attributes:
        known: H x W class indices by the digest of their image.
    """

    known: Mapping[str, UInt8Array]
    kind = DRAWN
    origin = "masks that somebody drew"

    @classmethod
    def of(cls, parts: Sequence[Dataset]) -> Self:
        """Those of some data sets.

        Raises:
            DataError: One has none.
        """
        for part in parts:
            check_drawn(part)
        pairs = (zip(part.contents(), part.drawn, strict=True) for part in parts)
        return cls({digest: mask for part in pairs for digest, mask in part})

    @cached_property
    def digest(self) -> str:
        """Hex digest of all masks."""
        lines = [f"{image} {array_digest(mask)}" for image, mask in sorted(self.known.items())]
        return _digest("\n".join(lines).encode())

    def mask(self, image: UInt8Array) -> UInt8Array:
        """The mask of a known image.

        Raises:
            DataError: Nobody has drawn one.
        """
        found = self.known.get(array_digest(image))
        if found is None:
            raise DataError(
                "a model trained with `segmentation: ground_truth` needs a mask that somebody "
                f"drew, and has those of {len(self.known)} images, but this one of "
                f"{image.shape[0]} x {image.shape[1]} pixels is none of them. To classify from an "
                "image alone, train with `segmentation: models:/wbc_segmentation@champion`, or "
                "`wbc_segmentation.smgnn`."
            )
        return found

    def stored(self) -> Arrays:
        """The masks by digest."""
        return dict(self.known)


@dataclass(frozen=True)
class TrainedSegmenter:
    """A model of a segmentation objective, and the files that it was saved to.

    Masks are made one image at a time on the CPU, so they are the same wherever they are made.

    Attributes:
        kind: Name of the objective.
        files: Content of its files by name, as bytes.
        origin: In words, where it came from.
    """

    kind: str
    files: Arrays
    origin: str

    @classmethod
    def of(cls, objective: str, folder: Path, origin: str) -> Self:
        """The one that was saved to a folder."""
        files = {p.name: np.frombuffer(p.read_bytes(), np.uint8) for p in sorted(folder.iterdir())}
        return cls(objective, files, origin)

    @cached_property
    def digest(self) -> str:
        """Hex digest of its objective and files, and of the code that makes masks of them."""
        parts = [f"{name} {array_digest(self.files[name])}" for name in sorted(self.files)]
        return _digest("\n".join([self.kind, code_digest(), *parts]).encode())

    @cached_property
    def model(self) -> Any:
        """The model, on the CPU."""
        with TemporaryDirectory() as folder:
            for name, content in self.files.items():
                (Path(folder) / name).write_bytes(content.tobytes())
            return load_objective(self.kind).model.load(Path(folder))

    @property
    def num_params(self) -> int:
        """Parameters of the model."""
        return int(self.model.num_trainable)

    def mask(self, image: UInt8Array) -> UInt8Array:
        """The most probable class of each pixel."""
        found: UInt8Array = self.model.predict([image])[0].argmax(axis=2).astype(np.uint8)
        return found

    def stored(self) -> Arrays:
        """The files by name."""
        return dict(self.files)


Segmenter = WholeImage | DrawnMasks | TrainedSegmenter


def segmenter_of(params: SegmentationParams, fold: Fold, context: Context) -> Segmenter:
    """The segmenter that the parameters ask for, trained here where that is its kind.

    Raises:
        ConfigError: A recorded model is no segmenter.
        DataError: Drawn masks are needed, but the data has none.
        StoreError: There is no such recorded model.
        Diverged: The training of a segmenter failed.
    """
    value = params.segmentation
    if value == NONE:
        return WholeImage()
    if value == DRAWN:
        given = (fold.train, fold.val, fold.unlabelled)
        return DrawnMasks.of([part for part in given if part is not None])
    if is_recorded(value):
        objective = context.objective_of(value)
        if not objective.startswith(SEGMENTERS):
            raise ConfigError(
                f"`segmentation` must name a model of wbc_segmentation, but {value} is one of "
                f"{objective}. Name another, or none."
            )
        return TrainedSegmenter.of(objective, context.registered(value), value)
    own = params.in_fold()
    assert own is not None, "all other kinds are above"
    return _trained(value, own, fold.train, context)


def _trained(name: str, params: Frozen, data: Dataset, context: Context) -> TrainedSegmenter:
    """A segmenter of the training part, from the cache where it was trained before."""
    check_drawn(data)
    objective = load_objective(name)
    drawn = DrawnMasks.of([data])
    # Not of the trial's seed: all trials on these images shall see the same masks.
    seed = derive_seed("segmenter", name, drawn.digest)

    def train() -> Arrays:
        masked = replace(data, classes=CLASSES, masks=data.drawn, drawn=())
        fold = Fold(masked, masked.subset([0]))  # its score is not looked at
        fitting = Context(context.device, seed, context.cache)
        *_, last = objective.fit(params, fold, fitting)
        with TemporaryDirectory() as folder:
            last.model.save(Path(folder))
            return TrainedSegmenter.of(name, Path(folder), "").files

    key: dict[str, object] = {
        "objective": name,
        "params": canonical_json(params.in_force()),
        "images": drawn.digest,
        "code": code_digest(),
    }
    files = context.cache.arrays("segmenters", key, train)
    origin = f"{name}, trained on the {len(data)} training images of the fold"
    return TrainedSegmenter(name, files, origin)


def check_drawn(data: Dataset) -> None:
    """Raises `DataError` where a data set has no drawn masks."""
    if len(data.drawn) != len(data):
        raise DataError(
            f"drawn masks are needed for `segmentation: {DRAWN}`, and to train a segmenter in the "
            f"fold, but {data.name!r} has {len(data.drawn)} of them for {len(data)} images. Choose "
            "a reader that has masks (segmentation_wbc with `target: types`), a recorded segmenter "
            "(`segmentation: models:/...`), or none."
        )


def masks_of(
    segmenter: Segmenter, images: Sequence[UInt8Array], digests: Sequence[str], cache: Cache
) -> list[UInt8Array]:
    """A mask for each image, of H x W class indices; predicted ones are made once.

    Args:
        segmenter: Makes them.
        images: N images.
        digests: N digests of their content.
        cache: Keeps predicted masks.
    """
    if not isinstance(segmenter, TrainedSegmenter):
        return [segmenter.mask(image) for image in images]

    def made(image: UInt8Array, digest: str) -> UInt8Array:
        key: dict[str, object] = {"segmenter": segmenter.digest, "image": digest}
        found = cache.arrays("masks", key, lambda: {"mask": segmenter.mask(image)})["mask"]
        return np.asarray(found, np.uint8)

    return [made(image, digest) for image, digest in zip(images, digests, strict=True)]


def cell_or_all(mask: UInt8Array) -> UInt8Array:
    """The mask; where no cell was found, all of it cytoplasm as with `segmentation: none`.

    An image without a cell would be painted out as a whole, and the answer would be the same for
    every such image.
    """
    return mask if mask.any() else np.full_like(mask, CYTOPLASM)


def mask_scores(
    segmenter: Segmenter, data: Dataset, cache: Cache | None = None
) -> dict[str, float]:
    """How large a segmenter is, and how well it does where there are drawn masks to compare with.

    Args:
        segmenter: Makes the masks.
        data: Images, and perhaps their drawn masks.
        cache: Keeps predicted masks; default: nothing is kept.

    Returns:
        `segmenter_params`, and `mask_dice`: the mean over images, then over cytoplasm and nucleus.
    """
    if not isinstance(segmenter, TrainedSegmenter):
        return {}
    scores = {"segmenter_params": float(segmenter.num_params)}
    if len(data.drawn) == len(data):
        masks = masks_of(segmenter, data.images, data.contents(), cache or Cache.off())
        found = segmentation_report(masks, data.drawn, classes=CLASSES, background=BACKGROUND)
        scores["mask_dice"] = found["dice"]
    return scores


def restored(kind: str, origin: str, arrays: Arrays) -> Segmenter:
    """The segmenter whose `kind`, `origin` and `stored` these are."""
    if kind == NONE:
        return WholeImage()
    return DrawnMasks(arrays) if kind == DRAWN else TrainedSegmenter(kind, arrays, origin)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
