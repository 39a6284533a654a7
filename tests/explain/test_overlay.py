"""Which images stand where, and what the error map marks."""

import math

import numpy as np
import pytest
from explain.discs import Shifted, cell, dataset
from hypothesis import given
from hypothesis import strategies as st

from hemaml.explain import overlay
from hemaml.explain.predictions import predict_masks


def shown(model, data, monkeypatch):
    """Indices of the images by section, as drawn."""
    drawn = []
    monkeypatch.setattr(overlay, "_page", lambda sections, *_: drawn.extend(sections) or b"")
    overlay.draw(model, data)
    return [indices for _, indices in drawn]


def test_best_and_worst_are_ordered_by_how_far_the_prediction_is_off(shifted, monkeypatch):
    """A disc moved farther overlaps less, so the order of Dice is that of the shifts."""
    _, data = shifted(10)
    shifts = [3, 9, 0, 5, 1, 8, 2, 7, 4, 6]
    sections = shown(Shifted(data, shifts), data, monkeypatch)
    assert [[shifts[i] for i in section] for section in sections] == [[0, 1, 2, 3], [6, 7, 8, 9]]


@pytest.mark.parametrize("num", [1, 4, 5, 7, 8, 9])
def test_below_eight_images_each_is_shown_once(num, shifted, monkeypatch):
    sections = shown(*shifted(num), monkeypatch)
    assert [len(s) for s in sections] == ([num] if num < 8 else [4, 4])
    flat = [i for section in sections for i in section]
    assert len(flat) == len(set(flat)) == min(num, 8)


@pytest.mark.parametrize("num", [1, 5, 8, 20])
def test_each_row_has_four_panels(num, shifted, monkeypatch):
    pages = []
    monkeypatch.setattr(overlay, "to_png", lambda page: pages.append(page) or b"")
    overlay.draw(*shifted(num))
    (page,) = pages
    assert len(page.axes) == 4 * min(num, 8)
    outlines = [len(axes.lines) for axes in page.axes[:4]]
    assert outlines[0] == outlines[3] == 0
    assert outlines[1] == outlines[2] == 3  # cytoplasm: outer and inner contour; nucleus: one


def test_a_row_names_the_image_and_its_dice(shifted, monkeypatch):
    pages = []
    monkeypatch.setattr(overlay, "to_png", lambda page: pages.append(page) or b"")
    data = dataset([cell(nucleus=0)])
    overlay.draw(Shifted(data, [0]), data)
    texts = [text.get_text() for text in pages[0].texts]
    assert {"cell-00", "cytoplasm", "nucleus", "1.000", "absent"} <= set(texts)


def test_a_class_that_an_image_lacks_does_not_count(shifted):
    data = dataset([cell(nucleus=0), cell(radius=0, nucleus=0)])
    dice = predict_masks(Shifted(data, [0, 0]), data).dice
    assert dice[0] == 1
    assert math.isnan(dice[1])


@given(st.lists(st.one_of(st.just(math.nan), st.floats(0, 1)), max_size=20))
def test_rank_orders_all_and_shows_no_undefined_score_for_a_defined_one(dice):
    order = overlay.rank(dice)
    assert sorted(order) == list(range(len(dice)))
    ranked = [dice[i] for i in order if not math.isnan(dice[i])]
    assert ranked == sorted(ranked, reverse=True)
    if len(ranked) >= 8:
        assert not np.isnan([dice[i] for i in order[:4] + order[-4:]]).any()


def test_error_map_marks_each_kind_of_error_and_nothing_else():
    truth = np.array([[0, 1, 1, 2, 0]], dtype=np.uint8)
    predicted = np.array([[0, 1, 0, 1, 2]], dtype=np.uint8)
    shown = overlay.error_map(np.zeros((1, 5, 3), dtype=np.uint8), predicted, truth)
    hexes = [f"#{r:02X}{g:02X}{b:02X}" for r, g, b in shown[0]]
    assert hexes[2:] == [overlay.MISSED, overlay.CONFUSED, overlay.EXTRA]
    assert hexes[0] == hexes[1] == "#999999"
