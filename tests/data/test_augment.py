import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hemaml.core.errors import DataError
from hemaml.data.augment import (
    NUM_CODES,
    apply_dihedral,
    apply_dihedral_points,
    inverse_dihedral,
    random_dihedral,
)
from hemaml.data.batches import pad_batch

ALL = torch.arange(NUM_CODES)


def marked(size: int = 5) -> torch.Tensor:
    return torch.arange(2 * size * size).reshape(1, 2, size, size).repeat(NUM_CODES, 1, 1, 1)


def test_the_codes_are_all_symmetries_of_the_square():
    moved = apply_dihedral(marked(), ALL)
    assert len({tuple(image.flatten().tolist()) for image in moved}) == NUM_CODES
    turns = {tuple(torch.rot90(marked()[0], k, (1, 2)).flatten().tolist()) for k in range(4)}
    assert turns <= {tuple(image.flatten().tolist()) for image in moved}


def test_the_inverse_undoes_every_code():
    moved = apply_dihedral(marked(), ALL)
    assert torch.equal(apply_dihedral(moved, inverse_dihedral(ALL)), marked())


def test_the_codes_are_closed_under_composition():
    known = {tuple(image.flatten().tolist()) for image in apply_dihedral(marked(), ALL)}
    for first, second in itertools.product(range(NUM_CODES), repeat=2):
        once = apply_dihedral(marked()[:1], torch.tensor([first]))
        twice = apply_dihedral(once, torch.tensor([second]))
        assert tuple(twice.flatten().tolist()) in known


def test_each_image_has_its_own_element_and_the_batch_is_not_written_to():
    generator = torch.Generator().manual_seed(0)
    batch = torch.rand(20, 3, 6, 6, generator=generator)
    before = batch.clone()
    codes = random_dihedral(20, generator)
    moved = apply_dihedral(batch, codes)
    for image, code, result in zip(batch, codes, moved, strict=True):
        assert torch.equal(apply_dihedral(image[None], code[None])[0], result)
    assert torch.equal(batch, before)


def test_codes_are_drawn_from_the_generator_over_the_whole_group():
    draw = [random_dihedral(500, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(draw[0], draw[1])
    assert draw[0].unique().tolist() == list(range(NUM_CODES))


@given(st.integers(1, 9), st.integers(0, 7), st.data())
def test_points_move_with_the_image(size, code, data):
    place = st.integers(0, size - 1)
    points = torch.tensor(data.draw(st.lists(st.tuples(place, place), min_size=1, max_size=5)))
    image = torch.rand(1, 1, size, size)
    moved = apply_dihedral(image, torch.tensor([code]))[0, 0]
    there = apply_dihedral_points(points, code, size)
    assert torch.equal(moved[there[:, 0], there[:, 1]], image[0, 0, points[:, 0], points[:, 1]])
    back = apply_dihedral_points(there, int(inverse_dihedral(torch.tensor(code))), size)
    assert torch.equal(back, points)


def test_images_are_padded_to_the_largest_side():
    images = [np.full((h, w, 3), 7, np.uint8) for h, w in ((2, 3), (5, 1))]
    batch, valid = pad_batch(images, fill=255)
    assert batch.shape == (2, 3, 5, 5)
    assert batch.dtype == torch.uint8
    assert valid.shape == (2, 1, 5, 5)
    assert valid.sum(dim=(1, 2, 3)).tolist() == [6, 5]
    assert (batch.movedim(1, -1)[valid[:, 0]] == 7).all()
    assert (batch.movedim(1, -1)[~valid[:, 0]] == 255).all()
    assert valid[0, 0, 0, 0]


def test_valid_moves_with_the_images():
    batch, valid = pad_batch([np.ones((2, 4, 1), np.float32)] * NUM_CODES, side=6)
    assert torch.equal(apply_dihedral(batch, ALL) > 0, apply_dihedral(valid, ALL))


def test_an_image_larger_than_the_side_is_named():
    with pytest.raises(DataError, match="square of 3 pixels a side, but one has 4"):
        pad_batch([np.ones((4, 2, 3), np.uint8)], side=3)
