"""Why a model says what it says: heat, outlines or neighbours; runs in the thread of the desk."""

import base64
import io
from http import HTTPStatus
from typing import cast

import numpy as np
from PIL import Image

from hemaml.core.errors import UnknownName
from hemaml.core.types import Float32Array, UInt8Array
from hemaml.explain.canvas import class_colour
from hemaml.explain.heat_maps import LAYER, USUAL, explained
from hemaml.explain.heat_sheet import heat_picture
from hemaml.serve.answers import Contours, GradCam, Neighbour, Neighbours, Result
from hemaml.serve.champions import Served
from hemaml.serve.problems import Refused
from hemaml.tasks._classification import Attaching, Explainable

LONGER_SIDE = 1024
"""Pixels of a picture that lies over an image, at most; the page scales it."""
MOST_HEAT = 0.85
"""Opacity of the hottest pixel."""
UNSEEN_VEIL = 0.8
"""That of pixels that the model has not seen, as a share of it."""
FILL = 110
"""Opacity of a class's pixels, of 255."""


def explanation(
    served: Served, image: UInt8Array, result: Result, *, target: str | None, method: str | None
) -> GradCam | Contours | Neighbours:
    """What explains the result of an image.

    Args:
        served: The model.
        image: H x W x 3.
        result: What the model says of it.
        target: A class that heat is asked for; None for the most probable.
        method: A name in `hemaml.explain.heat_maps.METHODS`; None for the usual.

    Raises:
        UnknownName: No such class or method.
        Refused: Models of this kind explain nothing, or take neither class nor method.
    """
    kind = served.facts.explains
    if kind != "grad_cam" and (target or method):
        raise Refused(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "`target` and `method` are for models that Grad-CAM explains",
            f"{served.facts.name} is {served.facts.objective}",
            "Leave them out: /api/v1/models tells what explains each model.",
        )
    if kind == "contours":
        assert result.segmentation is not None
        found = served.opened.model.predict([image])[0]
        return Contours(segmentation=result.segmentation, overlay=_classes_picture(found))
    if kind == "neighbours":
        return _neighbours(served, image)
    if kind == "grad_cam":
        return _grad_cam(served, image, target, method or USUAL)
    raise Refused(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "an explanation needs a convolutional, a graph or a segmenting model",
        f"{served.facts.name} is {served.facts.objective}",
        "Ask /api/v1/predict, or for another model: /api/v1/models tells what each explains.",
    )


def _grad_cam(served: Served, image: UInt8Array, target: str | None, method: str) -> GradCam:
    classes = served.opened.classes
    if target and target not in classes:
        raise UnknownName("class", target, classes)
    index = classes.index(target) if target else None
    model = cast(Explainable, served.opened.model)
    (found,) = explained(model, [image], method=method, target=index)
    strength = np.where(found.shown, np.clip(found.heat, 0, 1) ** 0.7, UNSEEN_VEIL)
    opacity = np.round(255 * MOST_HEAT * strength).astype(np.uint8)
    return GradCam(
        target=classes[found.target],
        method=method,
        layer=LAYER,
        heat=data_uri(np.dstack([heat_picture(found), opacity])),
        shown=float(found.shown.mean()),
    )


def _neighbours(served: Served, image: UInt8Array) -> Neighbours:
    found = cast(Attaching, served.opened.model).neighbourhood(image)
    order = np.argsort(-np.asarray(found.weights), kind="stable").tolist()
    return Neighbours(
        k=len(order),
        neighbours=[
            Neighbour(
                label=served.opened.classes[found.labels[i]],
                similarity=float(found.similarities[i]),
                weight=float(found.weights[i]),
                name=str(found.ids[i]),
                picture=data_uri(found.thumbnails[i]) if len(found.thumbnails) else None,
            )
            for i in order
        ],
    )


def _classes_picture(probabilities_HWC: Float32Array) -> str:
    """Each pixel in the colour of its class; the background is clear."""
    class_HW = probabilities_HWC.argmax(axis=2)
    palette = [(0, 0, 0, 0)]
    for index in range(1, probabilities_HWC.shape[2]):
        hexes = class_colour(index).removeprefix("#")
        palette.append((*bytes.fromhex(hexes), FILL))
    return data_uri(np.array(palette, dtype=np.uint8)[class_HW])


def data_uri(pixels: UInt8Array) -> str:
    """H x W x 3 or 4 as a PNG, at most `LONGER_SIDE` wide and high."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((LONGER_SIDE, LONGER_SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=3)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
