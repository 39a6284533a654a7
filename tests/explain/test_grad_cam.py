"""What the sheets of heat maps show; how they look is seen by eye."""

import io
from dataclasses import replace

import numpy as np
import pytest
from explain.tissue import CLASSES, Tissue, dataset, network, tissue
from PIL import Image

from hemaml.core.errors import DataError
from hemaml.explain import grad_cam, heat_sheet, pictures
from hemaml.explain.faithfulness import measured
from hemaml.explain.grad_cam import surest
from hemaml.explain.heat_maps import Explained
from hemaml.explain.heat_sheet import Row, comparison_sheet, heat_picture, overlay, single_sheet
from hemaml.explain.outcome import Outcome


@pytest.fixture
def pages(monkeypatch):
    found = []
    monkeypatch.setattr(heat_sheet, "to_png", lambda page: found.append(page) or b"")
    return found


def explained_as(target, shape=(72, 96), shares=(0.2, 0.7, 0.1)):
    image, inside = tissue(height=shape[0], width=shape[1])
    seen = np.ones(shape, dtype=bool)
    return Explained(image, np.array(shares, np.float32), target, inside.astype(np.float32), seen)


def texts(page):
    return [text.get_text() for text in page.texts]


def test_the_surest_of_a_class_come_first():
    probabilities = np.array(
        [[0.5, 0.3, 0.2], [0.9, 0.1, 0], [0.1, 0.9, 0], [0.6, 0.2, 0.2], [0.2, 0.8, 0]], np.float32
    )
    data = replace(dataset(5), labels=(0, 0, 0, 0, 1))
    outcome = Outcome(data, probabilities)
    assert surest(outcome, 0, right=True) == [1, 3]
    assert surest(outcome, 0, right=False) == [2]
    assert surest(outcome, 1, right=True) == [4]
    assert surest(outcome, 2, right=True) == []


def test_cold_places_stay_as_they_are_and_hot_ones_turn_red():
    image, inside = tissue()
    found = overlay(explained_as(1, image.shape[:2]))
    np.testing.assert_array_equal(found[~inside], image[~inside])
    red, green, blue = found[inside].mean(axis=0)
    assert red > 1.5 * green and red > 1.5 * blue
    assert found[inside].std(axis=0).min() > 1, "the tissue is still to be seen"


def test_what_no_tile_shows_is_grey_and_said_to_be(pages):
    found = explained_as(1)
    half = np.arange(96) < 48
    half = replace(found, shown=found.shown & half, heat=found.heat * half)
    for draw in (overlay, heat_picture):
        left, right = np.split(draw(half), 2, axis=1)
        np.testing.assert_array_equal(left, draw(found)[:, :48])
        assert (right == right[..., :1]).all(), "no colour"
    single_sheet("title", "below", CLASSES, [("", [Row("a", 0, [half])])])
    single_sheet("title", "below", CLASSES, [("", [Row("a", 0, [found])])])
    with_key, without = pages
    assert any("not shown to the model" in text for text in texts(with_key))
    assert not any("not shown to the model" in text for text in texts(without))


def test_a_row_has_image_map_overlay_and_a_bar_a_class(pages):
    row = Row("slide-1", 2, [explained_as(1)])
    single_sheet("title", "below", CLASSES, [("MCL", [row]), ("CLL", [])])
    (page,) = pages
    assert len(page.axes) == 1 + 3 + 3  # the scale, the panels, the bars
    assert [round(axes.patches[0].get_width(), 2) for axes in page.axes[-3:]] == [0.2, 0.7, 0.1]
    assert {"slide-1", "is MCL", "70%", "✗", "no images"} <= set(texts(page))
    assert "✓" not in texts(page)


def test_models_stand_side_by_side(pages):
    rows = [Row(f"slide-{i}", None, [explained_as(1), explained_as(0)]) for i in range(2)]
    comparison_sheet("title", "below", CLASSES, ["resnet50", "densenet121"], rows)
    (page,) = pages
    assert len(page.axes) == 1 + 2 * (1 + 2 * (1 + 3))
    told = texts(page)
    assert {"resnet50", "densenet121", "slide-0", "slide-1"} <= set(told)
    assert not {"✓", "✗"} & set(told), "nobody knows the truth"


@pytest.mark.parametrize("shape", [(72, 96), (96, 40), (900, 1200)])
def test_a_sheet_of_any_shape_is_white_around(shape):
    png = single_sheet("t", "b", CLASSES, [("", [Row("a", 0, [explained_as(1, shape)])] * 2)])
    image = np.asarray(Image.open(io.BytesIO(png)))
    border = [image[:10], image[-10:], image[:, :10], image[:, -10:]]
    assert all((side == 255).all() for side in border), "something is clipped"
    assert len(np.unique(image @ (65536, 256, 1))) > 100


@pytest.mark.parametrize("tiles", [0, 2])
def test_a_classifier_is_pictured_and_measured(tiles):
    model, data = Tissue(network(), size=32, tiles=tiles), dataset(6)
    drawn = pictures(["grad_cam"], model, data)
    assert [picture.name for picture in drawn] == ["grad_cam", "grad_cam_sanity"]
    for picture in drawn:
        image = np.asarray(Image.open(io.BytesIO(picture.png)))
        assert (image[:, -10:] == 255).all() and (image[-10:] == 255).all(), "clipped"
        assert image.std() > 5
    assert grad_cam.measure(model, data) == measured(model, data)


def test_other_data_is_refused():
    model, data = Tissue(network(), size=32), dataset(3)
    with pytest.raises(DataError, match="'tissue' has 0 images"):
        pictures(["grad_cam"], model, data.subset([]))
