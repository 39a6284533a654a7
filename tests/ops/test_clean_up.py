import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label as components

from hemaml.ops.clean_up import clean_up

MASKS = arrays(
    np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 2)
)


def parse(text):
    return np.array([list(map(int, line)) for line in text.split()], dtype=np.uint8)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("0000 0110 0000 2000", "0000 0110 0000 0000"),  # the smaller component goes
        ("1110 1010 1110", "1110 1110 1110"),  # enclosed background becomes cytoplasm
        ("2220 2120 2220", "2220 2220 2220"),  # enclosed cytoplasm becomes nucleus
        ("2220 2020 2220", "2220 2220 2220"),  # enclosed background, too, in two steps
        ("1111 1211 1112", "1111 1211 1112"),  # two lobes stay
        ("0110 1001 0110", "0110 1111 0110"),  # corners join the foreground and close holes
        ("0000 0000", "0000 0000"),
        ("1001", "1000"),  # of equals, the first stays
    ],
)
def test_clean_up_by_hand(before, after):
    assert np.array_equal(clean_up(parse(before)), parse(after))


@pytest.mark.parametrize("turns", range(4))
def test_what_is_open_to_an_edge_of_the_image_is_no_hole(turns):
    mask = np.rot90(parse("222 202 222 212 202"), turns)
    assert np.array_equal(clean_up(mask), np.rot90(parse("222 222 222 212 202"), turns))


@settings(max_examples=200, deadline=None)
@given(MASKS)
def test_cleaned_masks_obey_the_rules_and_stay(mask):
    original = mask.copy()
    cleaned = clean_up(mask)
    assert np.array_equal(mask, original)
    assert cleaned.dtype == np.uint8
    cell = cleaned > 0
    assert components(cell, structure=np.ones((3, 3)))[1] == int(mask.any())
    for solid in (cell, cleaned == 2):
        outside = np.pad(~solid, 1, constant_values=True)
        assert components(outside)[1] == 1
    assert np.array_equal(clean_up(cleaned), cleaned)


def test_drawn_cells_stay_as_they_are(drawn_cells):
    for _, mask in drawn_cells:
        assert np.array_equal(clean_up(mask), mask)


def test_real_masks_hardly_change(real_cells):
    changed = np.mean([(clean_up(mask) != mask).mean() for _, mask in real_cells])
    assert changed < 0.001
