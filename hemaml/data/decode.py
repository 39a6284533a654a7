"""Image and mask files to arrays.

Shape suffixes: H, W image sides; 3 colour channels R, G, B.
"""

import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemaml.core.types import UInt8Array
from hemaml.data.problems import BadFile

DECODE_VERSION = 3
"""To be raised when files decode to other arrays, so that remembered digests are not used."""
MAX_PIXELS = 80_000_000
"""Larger pictures are refused before they are decoded; no field of view of a camera has so many."""
MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP", b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}  # fmt: skip
"""First bytes of what strangers may send: some files that Pillow reads would start programs."""
KINDS = "PNG, JPEG, BMP or TIFF file"
DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a file that is no whole picture."""
LARGEST_OF_8_BITS, LARGEST_OF_12_BITS = 255, 4095
CRAFTED = (*DAMAGED, struct.error, ArithmeticError, LookupError, TypeError, EOFError)
"""What it raises besides, deep in its plugins, for headers that contradict themselves."""


def decode_image(source: Path | bytes, *, name: str = "") -> UInt8Array:
    """An image file as H x W x 3, uint8, RGB, whatever its mode.

    Of 16-bit values the high byte is kept, so that 65535 becomes 255; those of 8 bits stay as they
    are. Transparent pixels are laid over white, the colour of an empty smear. Of several frames the
    first is taken.

    Args:
        source: The file, or its content.
        name: How messages call it; default: its path.

    Raises:
        BadFile: Missing, truncated, no picture, too large, or with pixels that are no integers of 8
            or 16 bits; those of a camera of 10 or 12 bits would become black.
    """
    name = name or (str(source) if isinstance(source, Path) else "the picture")
    with _opened(source, name) as image:
        if image.mode.startswith(("I", "F")):
            return np.repeat(_of_8_bits(_grey_values(image, name), name)[:, :, None], 3, axis=2)
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image.convert("RGBA"))
            return np.array(white.convert("RGB"))
        return np.array(image.convert("RGB"))


def decode_upload(content: bytes, *, name: str, max_pixels: int = MAX_PIXELS) -> UInt8Array:
    """A picture from a stranger as H x W x 3, uint8, RGB; as `decode_image`, but strict.

    The kind of file is told by its content alone, and one with several frames is refused, since it
    would not be known which of them is meant.

    Args:
        content: Of a PNG, JPEG, BMP or TIFF file.
        name: How messages call it.
        max_pixels: A larger picture is refused before it is decoded.

    Raises:
        BadFile: No such file, truncated, too large, several frames, or pixels that are no integers.
    """
    kind = next((kind for magic, kind in MAGIC.items() if content.startswith(magic)), None)
    if kind is None:
        found = f"its {len(content)} bytes begin with {content[:8]!r}"
        raise BadFile(name, f"must be a {KINDS}", found, "Convert it to one of these.")
    action = "Send the whole file, or another one."
    try:
        with Image.open(BytesIO(content), formats=[kind]) as image:
            size, several = image.size, _has_second(image)
    except CRAFTED as error:
        raise BadFile(name, "must be a whole, readable picture", str(error), action) from error
    if size[0] * size[1] > max_pixels:
        found = f"it has {size[0]} x {size[1]}"
        raise BadFile(name, f"a picture has at most {max_pixels:,} pixels", found, "Crop it.")
    if several:
        action = "Save the one that is meant as a file of its own."
        raise BadFile(name, "a picture has one frame", "it has several", action)
    try:
        return decode_image(content, name=name)
    except BadFile as error:
        raise BadFile(name, error.problem.rule, error.problem.found, action) from error
    except CRAFTED as error:
        raise BadFile(name, "must be a whole, readable picture", str(error), action) from error


def _has_second(image: Image.Image) -> bool:
    """Whether there is a second frame; all of them are never counted, as there may be millions."""
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def decode_mask(
    path: Path, levels: Mapping[int, int], *, tolerance: int, name: str = ""
) -> UInt8Array:
    """A mask file as H x W class indices, uint8.

    Args:
        path: A grey picture, or a coloured one with three equal channels.
        levels: Grey level to class index (`{0: 0, 128: 1, 255: 2}`).
        tolerance: Greatest distance of a pixel's grey from the level that it is snapped to.
        name: How messages call the file; default `path`.

    Raises:
        BadFile: As for `decode_image`; coloured; or a grey farther than `tolerance` from all
            levels: the message has each such grey and its number of pixels.
    """
    name = name or str(path)
    grey_HW = _decode_grey(path, name)
    present = np.flatnonzero(np.bincount(grey_HW.ravel()))
    known = np.array(sorted(levels))
    distance = np.abs(present[:, None] - known[None, :])
    stray = present[distance.min(axis=1) > tolerance]
    if len(stray):
        counted = ", ".join(f"{grey} ({np.sum(grey_HW == grey)} pixels)" for grey in stray[:8])
        raise BadFile(
            name,
            f"greys of a mask must be within {tolerance} of one of {known.tolist()}",
            f"it has {counted}{' and others' if len(stray) > 8 else ''}",
            "Correct the mask, or set `data.levels` and `data.tolerance` to fit it.",
        )
    class_of_grey = np.zeros(present[-1] + 1, dtype=np.uint8)
    class_of_grey[present] = [levels[int(known[nearest])] for nearest in distance.argmin(axis=1)]
    class_HW: UInt8Array = class_of_grey[grey_HW]
    return class_HW


def stray_greys(path: Path, levels: Mapping[int, int]) -> dict[int, int]:
    """Greys of a mask that are no level, with their numbers of pixels.

    Raises:
        BadFile: As for `decode_mask`.
    """
    counts = np.bincount(_decode_grey(path, str(path)).ravel())
    return {int(grey): int(counts[grey]) for grey in np.flatnonzero(counts) if grey not in levels}


def _decode_grey(path: Path, name: str) -> NDArray[Any]:
    with _opened(path, name) as image:
        if image.mode in ("1", "L"):
            return np.array(image.convert("L"))
        if image.mode.startswith(("I", "F")):
            return _grey_values(image, name)
        rgb_HW3 = np.array(image.convert("RGB"))
    if (rgb_HW3 != rgb_HW3[:, :, :1]).any():
        rule, action = "a mask must be grey", "Save it with one channel."
        raise BadFile(name, rule, "it is coloured", action)
    return np.asarray(rgb_HW3[:, :, 0])


def _grey_values(image: Image.Image, name: str) -> NDArray[Any]:
    """Pixels of a picture with one channel of more than 8 bits, as int32 in 0..65535."""
    values_HW = np.array(image)
    whole = values_HW.astype(np.int32)
    if image.mode == "F" or whole.min() < 0 or whole.max() > 65535:
        found = f"mode {image.mode!r} has pixels from {values_HW.min()} to {values_HW.max()}"
        raise BadFile(name, "pixels must be integers of 8 or 16 bits", found, "Save it as PNG.")
    return whole


def _of_8_bits(grey_HW: NDArray[Any], name: str) -> UInt8Array:
    brightest = int(grey_HW.max())
    if LARGEST_OF_8_BITS < brightest <= LARGEST_OF_12_BITS:
        raise BadFile(
            name,
            "pixels must be integers of 8 or 16 bits",
            f"its 16-bit pixels end at {brightest}, as those of a camera of 10 or 12 bits",
            "Scale them to 0..65535, or save it with 8 bits.",
        )
    return (grey_HW >> 8 if brightest > LARGEST_OF_8_BITS else grey_HW).astype(np.uint8)


@contextmanager
def _opened(source: Path | bytes, name: str) -> Iterator[Image.Image]:
    """The picture, decoded to its end, or `BadFile`."""
    try:
        image = _load(BytesIO(source) if isinstance(source, bytes) else source)
    except FileNotFoundError as error:
        action = "Import the data set again."
        raise BadFile(name, "the file must exist", "there is none", action) from error
    except DAMAGED as error:
        action = "Replace the file, or take it out of the data set."
        raise BadFile(name, "must be a whole, readable picture", str(error), action) from error
    with image:
        yield image


def _load(source: Path | BytesIO) -> Image.Image:
    with warnings.catch_warnings():
        # Of Pillow's two limits the lower one only warns; the check below refuses.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(source)
    try:
        if image.width * image.height > MAX_PIXELS:
            size = f"{image.width} x {image.height}"
            raise ValueError(f"{size} pixels are more than {MAX_PIXELS:,}")
        image.load()
    except BaseException:
        image.close()
        raise
    return image
