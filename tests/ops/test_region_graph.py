import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hemaml.core.errors import ConfigError
from hemaml.ops.region_graph import node_features, node_targets, radius_edges
from hemaml.ops.superpixels import superpixels

POSITIONS = st.one_of(
    st.floats(-50, 50, width=32),
    st.integers(-6, 6).map(float),  # ties and distances equal to the radius
)


def all_near_pairs(centres, radius):
    x = centres.astype(np.float64)
    near = np.abs(x[:, None] - x[None]).sum(axis=2) < radius
    np.fill_diagonal(near, False)
    return np.stack(np.nonzero(near))


@settings(max_examples=300, deadline=None)
@given(
    arrays(np.float32, st.tuples(st.integers(0, 40), st.just(2)), elements=POSITIONS),
    st.one_of(st.floats(1e-6, 300), st.sampled_from([1.0, 2.0, 12.0])),
)
def test_radius_edges_are_all_near_pairs_in_order(centres, radius):
    edges = radius_edges(centres, radius=radius)
    assert edges.dtype == np.int64
    assert np.array_equal(edges, all_near_pairs(centres, radius))


def test_radius_edges_of_an_image(drawn_cells):
    image, _ = drawn_cells[0]
    labels = superpixels(image, scale=16, compactness=5.0)
    centres = node_features(image, labels)[:, 3:]
    edges = radius_edges(centres, radius=12.0)
    assert np.array_equal(edges, all_near_pairs(centres, 12.0))
    assert 8 <= edges.shape[1] / len(centres) <= 24  # area 2 r^2 over 16 pixels, less the border


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan")])
def test_radius_must_be_positive(radius):
    with pytest.raises(ConfigError, match=f"radius > 0.*{radius}"):
        radius_edges(np.zeros((3, 2), np.float32), radius=radius)


def test_centres_must_be_pairs():
    with pytest.raises(ConfigError, match=r"K x 2.*\(3, 5\)"):
        radius_edges(np.zeros((3, 5), np.float32), radius=1.0)


def test_node_features_by_hand():
    labels = np.array([[0, 0, 1], [1, 1, 1]], dtype=np.int32)
    image = np.zeros((2, 3, 3), dtype=np.uint8)
    image[0, 0] = [255, 0, 51]
    image[0, 1] = [0, 0, 153]
    features = node_features(image, labels)
    assert features.dtype == np.float32
    assert features == pytest.approx(
        np.array([[0.5, 0, 0.4, 0, 0.5], [0, 0, 0, 0.75, 1.25]]), abs=1e-6
    )


def test_node_targets_by_hand():
    labels = np.array([[0, 0, 1], [1, 1, 1]], dtype=np.int32)
    mask = np.array([[0, 1, 2], [2, 2, 2]], dtype=np.uint8)
    targets = node_targets(labels, mask, num_classes=3)
    assert targets.dtype == np.float32
    assert targets == pytest.approx([0.25, 1.0])


def test_targets_need_two_classes():
    with pytest.raises(ConfigError, match="num_classes >= 2.*1"):
        node_targets(np.zeros((2, 2), np.int32), np.zeros((2, 2), np.uint8), num_classes=1)


def test_nodes_keep_the_mean_of_the_image(drawn_cells):
    image, mask = drawn_cells[1]
    labels = superpixels(image, scale=16, compactness=5.0)
    weights = np.bincount(labels.ravel()) / labels.size
    features = weights @ node_features(image, labels)
    assert features[:3] == pytest.approx(image.mean(axis=(0, 1)) / 255, abs=1e-5)
    assert features[3:] == pytest.approx([59.5, 59.5], abs=1e-3)
    assert weights @ node_targets(labels, mask, num_classes=3) == pytest.approx(mask.mean() / 2)
