"""Superpixels in the plane: classes that are apart, and classes that are not."""

import io

import numpy as np
import pytest
from PIL import Image

from hemaml.core.errors import DataError
from hemaml.data.smears import Smears, read
from hemaml.explain import embeddings, measurements
from hemaml.ops.superpixels import superpixels


@pytest.fixture(scope="module")
def data():
    return read(Smears(count=4, size=48))


class Known:
    """Embeds a superpixel by its class as far as `skill` goes, the rest is noise."""

    def __init__(self, data, skill):
        self.masks = {
            image.tobytes(): mask for image, mask in zip(data.images, data.masks, strict=False)
        }
        self.skill = skill

    def embed(self, images):
        return [self.one(image) for image in images]

    def one(self, image):
        labels = superpixels(image, scale=16, compactness=5)
        counts = np.bincount(labels.ravel())
        mean = np.bincount(labels.ravel(), weights=self.masks[image.tobytes()].ravel()) / counts
        ideal = np.eye(8)[np.floor(mean + 0.5).astype(int)]
        noise = np.random.default_rng(0).normal(size=ideal.shape)
        return labels, (self.skill * ideal + (1 - self.skill) * noise).astype(np.float32)


def test_the_silhouette_says_how_far_classes_are_apart(data):
    def silhouette(skill):
        return measurements(["embeddings"], Known(data, skill), data)["explain/silhouette"]

    assert silhouette(1) == pytest.approx(1)
    assert abs(silhouette(0)) < 0.1
    assert 0.1 < silhouette(0.7) < 0.9


def test_the_length_of_an_embedding_does_not_matter(data):
    class Longer(Known):
        def one(self, image):
            labels, values = super().one(image)
            return labels, values * np.linspace(1, 9, len(values), dtype=np.float32)[:, None]

    plain, longer = (embeddings.sampled(kind(data, 0.6), data) for kind in (Known, Longer))
    np.testing.assert_allclose(longer.embeddings, plain.embeddings, atol=1e-6)


def test_classes_share_the_places(data, monkeypatch):
    monkeypatch.setattr(embeddings, "EACH", 20)
    shown = embeddings.sampled(Known(data, 1), data)
    assert list(np.bincount(shown.classes)) == [20, 20, 20]
    assert set(shown.images) == {0, 1, 2, 3} and shown.total == 4 * 144
    np.testing.assert_array_equal(shown.embeddings.argmax(axis=1), shown.classes)


def test_the_picture_shows_each_class_and_the_number(data, monkeypatch):
    monkeypatch.setattr(embeddings, "umap", lambda features: features[:, :2])  # 17 s to import
    (picture,) = embeddings.draw(Known(data, 0.8), data)
    assert picture.name == "embeddings"
    pixels = np.asarray(Image.open(io.BytesIO(picture.png)))
    assert (pixels[:, -10:] == 255).all() and pixels.std() > 5
    shown = embeddings.sampled(Known(data, 0.8), data)
    assert f"silhouette {shown.silhouette:.3f}" in picture.html
    assert all(name in picture.html for name in data.classes)
    assert "<script src=" not in picture.html


def test_one_class_has_no_silhouette_and_no_masks_no_picture(data):
    from dataclasses import replace

    masks = tuple(np.zeros_like(mask) for mask in data.masks)
    bare = replace(data, masks=masks)
    assert np.isnan(embeddings.measure(Known(bare, 1), bare)["explain/silhouette"])
    with pytest.raises(DataError, match="need images with masks"):
        embeddings.draw(Known(data, 1), replace(data, masks=()))
