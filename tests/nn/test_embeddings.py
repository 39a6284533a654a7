"""Tables of activations beside the network itself."""

import numpy as np
import pytest
import torch

from hemaml.core.cache import Cache
from hemaml.core.rows import Rows
from hemaml.data import pixels as pixel_rows
from hemaml.nn.backbones import NUM_STAGES, load_backbone
from hemaml.nn.embeddings import activations, embeddings, from_rows

pytestmark = pytest.mark.usefixtures("one_thread")
NUM, SIDE = 35, 32


@pytest.fixture(scope="module")
def loaded():
    return load_backbone("resnet18", "none", lambda uri: None)


@pytest.fixture(scope="module")
def pixels():
    table = np.random.default_rng(0).integers(256, size=(NUM, SIDE, SIDE, 3), dtype=np.uint8)
    return Rows(table, np.arange(NUM))


DIGESTS = [f"{i:032x}" for i in range(NUM)]


def embed(loaded, pixels, cache=None, digests=DIGESTS):
    cache = cache or Cache.off()
    return embeddings(loaded, pixels, digests, cache, size=SIDE, device="cpu")


@torch.inference_mode()
def test_embeddings_are_the_features_of_the_network(loaded, pixels):
    found = embed(loaded, pixels)
    assert found.row_shape == (512,)
    assert found.table.dtype == np.float32
    expected = loaded.network(loaded.normalise(torch.from_numpy(pixels[:])))
    np.testing.assert_array_equal(found[:], expected.numpy())


@pytest.mark.parametrize("stage", range(1, NUM_STAGES + 1))
@torch.inference_mode()
def test_activations_are_what_the_network_has_at_that_stage(loaded, pixels, stage):
    rows = activations(loaded, pixels, DIGESTS, Cache.off(), size=SIDE, device="cpu", stage=stage)
    expected = loaded.network.up_to(loaded.normalise(torch.from_numpy(pixels[:])), stage)
    found = from_rows(rows[:], "cpu")
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()


def test_a_row_is_the_same_whatever_else_is_asked_for(loaded, pixels, tmp_path):
    """Also for a last batch of one image, which convolutions would sum in another order."""
    together = embed(loaded, pixels)[:]
    for first, last in ((0, 33), (7, 8), (20, 35)):
        part = Rows(pixels.table, np.arange(first, last))
        found = embed(loaded, part, digests=DIGESTS[first:last])[:]
        np.testing.assert_array_equal(found, together[first:last])
    filled = Cache(tmp_path)
    for chosen in (range(3, 4), range(NUM)):
        part = Rows(pixels.table, np.array(chosen))
        found = embed(loaded, part, filled, [DIGESTS[i] for i in chosen])[:]
        np.testing.assert_array_equal(found, together[list(chosen)])


def test_pixels_that_are_made_otherwise_have_embeddings_of_their_own(
    loaded, pixels, tmp_path, monkeypatch
):
    cache = Cache(tmp_path)
    images, scaled = list(pixels[:]), pixel_rows.scaled
    before = embed(loaded, pixel_rows.resized(images, DIGESTS, SIDE, cache), cache)[:]
    monkeypatch.setattr(pixel_rows, "VERSION", pixel_rows.VERSION + 1)
    monkeypatch.setattr(pixel_rows, "scaled", lambda image, size: 255 - scaled(image, size))
    after = embed(loaded, pixel_rows.resized(images, DIGESTS, SIDE, cache), cache)[:]
    np.testing.assert_array_equal(before, embed(loaded, pixels)[:])
    assert (before != after).any(axis=1).all()


def test_what_is_cached_belongs_to_its_weights(loaded, pixels, tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    first = embed(loaded, pixels, cache)[:]
    calls = []
    monkeypatch.setattr(loaded.network, "up_to", lambda *a: calls.append(a))
    np.testing.assert_array_equal(embed(loaded, pixels, cache)[:], first)
    assert not calls
    other = load_backbone("resnet18", "none", lambda uri: None, seed=1)
    assert not np.array_equal(embed(other, pixels, cache)[:], first)


def test_a_network_in_training_mode_is_evaluated(loaded, pixels):
    expected = embed(loaded, pixels)[:]
    before = loaded.network.stem.bn1.running_mean.clone()
    loaded.network.train()
    np.testing.assert_array_equal(embed(loaded, pixels)[:], expected)
    assert torch.equal(loaded.network.stem.bn1.running_mean, before)
