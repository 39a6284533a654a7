"""What a caller of a logged model may send, as images: arrays, files as base64 text, or paths.

A fault names the place in the input, counted from 0: `input[2]`.
"""

import base64
import binascii
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hemaml.core.errors import DataError
from hemaml.core.types import UInt8Array
from hemaml.data.decode import KINDS, MAGIC, decode_image
from hemaml.data.problems import BadFile

COLUMN = "image"
"""Of a table with several columns, the one that has the images."""
RULE = f"an image must be an array of H x W x 3, a {KINDS} as base64 text, or the path of one"
SHOWN = 60
"""Characters of a text that messages repeat."""
PATH_CHARS = 4096
"""No path is longer on Linux."""


def read_images(model_input: Any) -> list[UInt8Array]:
    """The images of one call, each as H x W x 3, uint8; their sizes may differ.

    Args:
        model_input: A list, an array of N x H x W x 3, or a table with the column `image` or one
            column alone. Each item is an array (or nested list) of H x W x 3 integers from 0 to
            255, a PNG, JPEG, BMP or TIFF file as base64 text (a `data:` URI, too), or a path.

    Raises:
        DataError: An item is none of these; the message has its index.
    """
    return [_image(item, f"input[{index}]") for index, item in enumerate(_items(model_input))]


def _items(model_input: Any) -> Iterable[Any]:
    if isinstance(model_input, pd.DataFrame):
        columns = list(model_input.columns)
        if COLUMN not in columns and len(columns) != 1:
            raise DataError(
                f"a table of images must have the column {COLUMN!r}, or one alone, but it has "
                f"{columns}. Rename the column."
            )
        return model_input[COLUMN if COLUMN in columns else columns[0]]
    single = isinstance(model_input, np.ndarray) and model_input.ndim == 3
    if single or not isinstance(model_input, (list, tuple, np.ndarray, pd.Series)):
        found = f"an array of {_shape(model_input)}" if single else type(model_input).__name__
        raise DataError(
            f"the input must be a list of images, but it is {found}. "
            "Put a single image into a list, too."
        )
    return model_input


def _image(item: Any, name: str) -> UInt8Array:
    if isinstance(item, (str, Path)):
        return _decoded(*_content(str(item), name))
    return _checked(item, name)


def _content(text: str, name: str) -> tuple[bytes, str]:
    """The bytes of a picture, and how messages call it."""
    shown = repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
    encoded = text
    if text.startswith("data:"):
        encoded = text.partition(",")[2]
    elif _is_file(text):
        try:
            return Path(text).read_bytes(), f"{name} ({text})"
        except OSError as error:
            action = "Check the rights of the file."
            raise BadFile(name, "the file must be readable", str(error), action) from error
    try:
        return base64.b64decode("".join(encoded.split()), validate=True), name
    except (binascii.Error, ValueError) as error:
        found = f"{shown} is no file here, and no base64: {error}"
        action = "Check the path, as the process that predicts sees it, or the encoding."
        raise BadFile(name, RULE, found, action) from error


def _is_file(text: str) -> bool:
    try:
        return len(text) < PATH_CHARS and Path(text).is_file()
    except OSError:  # a part that is too long for a name, as in base64
        return False


def _decoded(content: bytes, name: str) -> UInt8Array:
    if not content.startswith(tuple(MAGIC)):
        found = f"its {len(content)} bytes begin with {content[:8]!r}"
        action = "Convert it, or check the encoding or the path."
        raise BadFile(name, f"must be a {KINDS}", found, action)
    try:
        return decode_image(content, name=name)
    except BadFile as error:
        problem = error.problem
        action = "Send the whole file, or another one."
        raise BadFile(name, problem.rule, problem.found, action) from error


def _checked(item: Any, name: str) -> UInt8Array:
    rule, action = RULE, "Put a single image into a list, too."
    try:
        image = np.asarray(item)
    except ValueError as error:
        raise BadFile(name, RULE, f"its rows differ: {error}", action) from error
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        found = f"it is a {type(item).__name__} of {_shape(image)}"
    elif image.dtype.kind not in "iu":
        rule = "pixels must be integers from 0 to 255"
        found, action = f"they are {image.dtype}", "Scale them, and convert by `.astype('uint8')`."
    elif image.dtype != np.uint8 and (image.min() < 0 or image.max() > 255):
        rule = "pixels must be integers from 0 to 255"
        found, action = f"they go from {image.min()} to {image.max()}", "Scale them."
    else:
        return np.ascontiguousarray(image, dtype=np.uint8)
    raise BadFile(name, rule, found, action)


def _shape(image: Any) -> str:
    return " x ".join(str(side) for side in image.shape) or "no dimension"
