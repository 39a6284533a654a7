"""What a logged model takes as images, and what it says of the rest."""

import base64
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hemaml.core.errors import DataError
from hemaml.tracking.serving_input import read_images

RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, shape, dtype=np.uint8) for shape in ((9, 7, 3), (5, 11, 3))]
STACK = np.stack([IMAGES[0]] * 3)


def encoded(image, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (IMAGES, IMAGES),
        (STACK, list(STACK)),
        ([image.tolist() for image in IMAGES], IMAGES),
        ([image.astype(np.int64) for image in IMAGES], IMAGES),
        ([encoded(image) for image in IMAGES], IMAGES),
        ([encoded(image, "BMP") for image in IMAGES], IMAGES),
        ([encoded(image, "TIFF") for image in IMAGES], IMAGES),
        ([base64.encodebytes(base64.b64decode(encoded(IMAGES[0]))).decode()], IMAGES[:1]),
        ([f"data:image/png;base64,{encoded(IMAGES[0])}"], IMAGES[:1]),
        ([IMAGES[0], encoded(IMAGES[1])], IMAGES),
        (pd.DataFrame({"name": ["a", "b"], "image": IMAGES}), IMAGES),
        (pd.DataFrame({"picture": [encoded(image) for image in IMAGES]}, index=[7, 3]), IMAGES),
        ([], []),
    ],
    ids=["list", "stack", "nested", "int64", "png", "bmp", "tiff", "lines", "data-uri", "mixed",
         "table", "column", "none"],
)  # fmt: skip
def test_each_kind_gives_the_pixels(sent, expected):
    read = read_images(sent)
    assert len(read) == len(expected)
    for image, pixels in zip(read, expected, strict=True):
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, pixels)


def test_a_jpeg_is_read_in_colour():
    (image,) = read_images([encoded(np.full((8, 8, 3), (200, 10, 10), np.uint8), "JPEG")])
    assert abs(image[4, 4].astype(int) - (200, 10, 10)).max() < 5


def test_paths_are_read_even_where_their_names_look_like_base64(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(IMAGES[0]).save(tmp_path / "abcd", "PNG")
    for path in ("abcd", str(tmp_path / "abcd"), tmp_path / "abcd"):
        np.testing.assert_array_equal(read_images([path])[0], IMAGES[0])


def png_cut_short():
    return base64.b64encode(
        base64.b64decode(encoded(RNG.integers(0, 256, (64, 64, 3), np.uint8)))[:900]
    )


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (png_cut_short().decode(), r"input\[1\]: must be a whole, readable.*truncated"),
        ("cells/1.png", r"input\[1\]: .*'cells/1.png' is no file here, and no base64"),
        ("A" * 4999, r"input\[1\]: .*'A{60}\.\.\.' is no file here, and no base64"),
        (base64.b64encode(b"GIF89a..").decode(), r"input\[1\]: must be a PNG.*begin with b'GIF89a"),
        (IMAGES[0] / 255, r"input\[1\]: pixels must be integers.* but they are float64"),
        (IMAGES[0].astype(int) * 2, r"input\[1\]: pixels must be .* they go from \d+ to \d{3}"),
        (IMAGES[0][:, :, 0], r"input\[1\]: an image must be an array of H x W x 3.* of 9 x 7"),
        (np.zeros((4, 4, 4), np.uint8), r"input\[1\]: .* it is a ndarray of 4 x 4 x 4"),
        (np.zeros((0, 4, 3), np.uint8), r"input\[1\]: .* of 0 x 4 x 3"),
        ([[[1, 2, 3]], [[1, 2, 3], [1, 2, 3]]], r"input\[1\]: .* its rows differ"),
        (None, r"input\[1\]: .* it is a NoneType"),
        ({"image": 1}, r"input\[1\]: .* it is a dict"),
    ],
    ids=["truncated", "missing", "not-base64", "gif", "float", "range", "grey", "rgba", "empty",
         "ragged", "none", "dict"],
)  # fmt: skip
def test_what_is_no_image_is_named_with_its_place(item, message):
    with pytest.raises(DataError, match=message):
        read_images([IMAGES[0], item])


def test_a_damaged_file_is_named_with_its_path(tmp_path):
    (tmp_path / "a.png").write_bytes(base64.b64decode(png_cut_short()))
    with pytest.raises(DataError, match=r"input\[0\] \(.*a\.png\): must be a whole"):
        read_images([str(tmp_path / "a.png")])


@pytest.mark.parametrize("single", [IMAGES[0], encoded(IMAGES[0]), {"image": []}, 3])
def test_a_single_image_is_to_be_put_into_a_list(single):
    with pytest.raises(DataError, match="must be a list of images, but it is .*Put a single image"):
        read_images(single)


def test_a_table_must_say_which_column_has_the_images():
    with pytest.raises(DataError, match=r"the column 'image'.*\['a', 'b'\]"):
        read_images(pd.DataFrame({"a": [1], "b": [2]}))
