import numpy as np
import pytest
from PIL import Image

from hemaml.core.errors import DataError
from hemaml.data import decode
from hemaml.data.decode import decode_image, decode_mask, stray_greys

LEVELS = {0: 0, 128: 1, 255: 2}


@pytest.fixture
def rgb(rng):
    return rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_lossless_formats_decode_to_the_pixels_that_were_saved(tmp_path, save_picture, rgb, suffix):
    np.testing.assert_array_equal(decode_image(save_picture(tmp_path / f"a.{suffix}", rgb)), rgb)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "I", "F"])
def test_any_mode_becomes_rgb_or_says_why_not(tmp_path, rgb, mode):
    path = tmp_path / "a.tif"
    picture = Image.fromarray(rgb)
    (picture.convert("L").convert(mode) if mode in "IF" else picture.convert(mode)).save(path)
    if mode == "F":
        with pytest.raises(DataError, match=r"integers of 8 or 16 bits.*mode 'F'"):
            decode_image(path)
        return
    image = decode_image(path)
    assert image.shape == (7, 9, 3)
    assert image.dtype == np.uint8


def test_sixteen_bits_keep_their_high_byte(tmp_path, save_picture):
    grey = np.array([[0, 255, 256], [32768, 65280, 65535]], dtype=np.uint16)
    image = decode_image(save_picture(tmp_path / "a.png", grey))
    np.testing.assert_array_equal(image[:, :, 1], [[0, 0, 1], [128, 255, 255]])


@pytest.mark.parametrize("brightest", [256, 1023, 4095])
def test_values_of_ten_or_twelve_bits_are_refused_rather_than_black(
    tmp_path, save_picture, brightest
):
    path = save_picture(tmp_path / "a.png", np.array([[0, brightest]], dtype=np.uint16))
    with pytest.raises(DataError, match=f"end at {brightest}.*Scale them"):
        decode_image(path)


def test_values_of_eight_bits_in_sixteen_stay_as_they_are(tmp_path, save_picture):
    grey = np.array([[0, 7, 255]], dtype=np.uint16)
    image = decode_image(save_picture(tmp_path / "a.png", grey))
    assert image[0, :, 0].tolist() == [0, 7, 255]


def test_transparency_is_laid_over_white(tmp_path, save_picture):
    rgba = np.zeros((2, 2, 4), dtype=np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    image = decode_image(save_picture(tmp_path / "a.png", rgba))
    assert image[0, 0].tolist() == [10, 20, 30]
    assert (image[1, 1] == 255).all()


def test_transparent_palette_colour_is_laid_over_white(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([9, 9, 9, 50, 60, 70])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "a.png", transparency=0)
    assert decode_image(tmp_path / "a.png").tolist() == [[[255, 255, 255], [50, 60, 70]]]


@pytest.mark.parametrize("suffix", ["png", "bmp", "jpg"])
def test_truncated_file_is_named(tmp_path, save_picture, rng, suffix):
    path = save_picture(tmp_path / f"a.{suffix}", rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=rf"a\.{suffix}: must be a whole, readable picture.*Replac"):
        decode_image(path)


@pytest.mark.parametrize("content", [b"", b"no picture", b"BM" + bytes(60), b"\x89PNG\r\n\x1a\n"])
def test_garbage_is_named(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"x/a\.png: must be a whole"):
        decode_image(tmp_path / "a.png", name="x/a.png")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.png: the file must exist"):
        decode_image(tmp_path / "a.png")


def test_bomb_is_refused_before_it_is_decoded(tmp_path, save_picture, rgb, monkeypatch):
    path = save_picture(tmp_path / "a.png", rgb)
    monkeypatch.setattr(decode, "MAX_PIXELS", 62)
    with pytest.raises(DataError, match="9 x 7 pixels are more than 62"):
        decode_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match="readable picture"):
        decode_image(path)


def test_mask_levels_become_classes(tmp_path, save_picture):
    grey = np.array([[0, 128], [255, 0]], dtype=np.uint8)
    mask = decode_mask(save_picture(tmp_path / "m.png", grey), LEVELS, tolerance=0)
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[0, 1], [2, 0]]


def test_greys_within_tolerance_are_snapped_to_the_nearest(tmp_path, save_picture):
    grey = np.array([[50, 78, 7], [200, 191, 64]], dtype=np.uint8)
    path = save_picture(tmp_path / "m.png", grey)
    assert decode_mask(path, LEVELS, tolerance=64).tolist() == [[0, 1, 0], [2, 1, 0]]
    assert stray_greys(path, LEVELS) == {7: 1, 50: 1, 64: 1, 78: 1, 191: 1, 200: 1}


def test_greys_beyond_tolerance_are_named_with_their_pixels(tmp_path, save_picture):
    path = save_picture(tmp_path / "m.png", np.array([[5, 9, 9, 128]], dtype=np.uint8))
    with pytest.raises(DataError, match=r"within 5 of one of \[0, 128, 255\].* 9 \(2 pixels\)"):
        decode_mask(path, LEVELS, tolerance=5)


def test_masks_of_other_modes(tmp_path, save_picture):
    equal = np.array([[[128] * 3, [255] * 3]], dtype=np.uint8)
    path = save_picture(tmp_path / "rgb.png", equal)
    assert decode_mask(path, LEVELS, tolerance=0).tolist() == [[1, 2]]
    path = save_picture(tmp_path / "bits.png", np.array([[False, True]]))
    assert decode_mask(path, {0: 0, 255: 1}, tolerance=0).tolist() == [[0, 1]]
    path = save_picture(tmp_path / "deep.png", np.array([[0, 1000, 65535]], dtype=np.uint16))
    assert decode_mask(path, {0: 0, 1000: 1, 65535: 2}, tolerance=0).tolist() == [[0, 1, 2]]


def test_coloured_mask_is_refused(tmp_path, save_picture, rgb):
    with pytest.raises(DataError, match="a mask must be grey"):
        decode_mask(save_picture(tmp_path / "m.png", rgb), LEVELS, tolerance=64)


def test_eight_bits_that_are_kept_in_32_stay_as_they_are(tmp_path):
    grey = np.array([[0, 7, 200, 255]], dtype=np.int32)
    Image.fromarray(grey).save(tmp_path / "grey.tif")
    np.testing.assert_array_equal(decode_image(tmp_path / "grey.tif")[:, :, 1], grey)
    Image.fromarray(grey * 257).save(tmp_path / "deep.tif")
    np.testing.assert_array_equal(decode_image(tmp_path / "deep.tif")[:, :, 1], grey)
