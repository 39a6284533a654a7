"""What a model says of images; runs in the thread of the desk."""

from collections.abc import Sequence
from typing import cast

from hemaml.core.types import Float32Array, UInt8Array
from hemaml.ops.novelty import UNLIKE, Reference
from hemaml.serve.answers import Novelty, Result
from hemaml.serve.champions import Served
from hemaml.serve.segmentation import segmentation
from hemaml.serve.uploads import Upload
from hemaml.tasks._classification import Classifier


def judged(served: Served, uploads: Sequence[Upload], images: Sequence[UInt8Array]) -> list[Result]:
    """The result of each image, in order."""
    opened = served.opened
    if opened.segments:
        return [
            _result(upload, image).model_copy(
                update={"segmentation": segmentation(found, opened.classes)}
            )
            for upload, image, found in zip(
                uploads, images, opened.model.predict(images), strict=True
            )
        ]
    novelties: Sequence[Novelty | None] = [None] * len(images)
    if opened.reference is None:
        rows = opened.model.predict(images)
    else:
        rows, features = cast(Classifier, opened.model).predict_and_embed(images)
        novelties = told_novelty(opened.reference, features)
    return [
        _result(upload, image).model_copy(
            update={
                "label": opened.classes[int(row.argmax())],
                "probabilities": dict(zip(opened.classes, map(float, row), strict=True)),
                "novelty": novelty,
            }
        )
        for upload, image, row, novelty in zip(uploads, images, rows, novelties, strict=True)
    ]


def told_novelty(reference: Reference, features_QD: Float32Array) -> list[Novelty]:
    """How unlike the training images each of Q images is, in figures and in words."""
    return [_novelty(reference, float(d)) for d in reference.distance(features_QD)]


def _novelty(reference: Reference, distance: float) -> Novelty:
    percentile = reference.percentile(distance)
    unlike = percentile > UNLIKE
    text = f"{100 - percentile:.0f} % of the training images are farther from each other."
    if unlike:
        text = (
            "Unlike the images that the model was trained on: it is farther from them than "
            f"{percentile:.0f} % of them are from each other. Do not rely on the answer."
        )
    return Novelty(distance=distance, percentile=percentile, unlike=unlike, text=text)


def _result(upload: Upload, image: UInt8Array) -> Result:
    return Result(
        index=upload.index,
        name=upload.name,
        width=image.shape[1],
        height=image.shape[0],
        label=None,
        probabilities=None,
        segmentation=None,
        novelty=None,
    )
