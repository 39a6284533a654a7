"""What is unlike training images, by a reference that a clear answer is known for."""

import numpy as np
import pytest

from hemaml.ops.novelty import LEAST, UNLIKE, Reference

RNG = np.random.default_rng(0)


def cloud(num, dim=16, centre=0.0):
    scale = np.linspace(0.1, 100, dim)
    return ((RNG.normal(size=(num, dim)) + centre) * scale).astype(np.float32)


def test_the_same_kind_is_like_and_another_is_not():
    reference = Reference.of(cloud(300), ())
    same = reference.distance(cloud(200))
    assert np.mean([reference.percentile(d) > UNLIKE for d in same]) < 0.05
    assert (reference.distance(cloud(50, centre=6.0)) > same.max()).all()
    assert all(reference.percentile(d) == 100 for d in reference.distance(cloud(5, centre=9.0)))


def test_scales_of_features_do_not_matter_and_constant_ones_are_borne():
    features = cloud(60)
    others = cloud(9, centre=1)
    wide = np.array([1e3] * 15 + [0], dtype=np.float32)
    one, other = Reference.of(features[:, :15], ()), Reference.of(features * wide, ())
    plain, scaled = one.distance(others[:, :15]), other.distance(others * wide)
    np.testing.assert_allclose(plain * np.sqrt(15 / 16), scaled, rtol=1e-3)


def test_images_of_one_patient_do_not_make_each_other_near():
    """Near copies within a patient: a new patient's images must not all be unlike."""
    centres = np.repeat(cloud(40, dim=8), 6, axis=0)
    features = centres + RNG.normal(size=centres.shape).astype(np.float32) * 1e-3
    names = [f"p{i // 6}" for i in range(240)]
    fresh = cloud(100, dim=8)
    with_groups, without = Reference.of(features, names), Reference.of(features, ())
    flagged = [
        np.mean([r.percentile(d) > UNLIKE for d in r.distance(fresh)])
        for r in (with_groups, without)
    ]
    assert flagged[0] < 0.25 and flagged[1] > 0.9


def test_it_is_read_back_as_it_was(tmp_path):
    reference = Reference.of(cloud(30), [f"p{i % 5}" for i in range(30)])
    reference.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["novelty.safetensors"]
    again, query = Reference.load(tmp_path), cloud(4)
    np.testing.assert_array_equal(again.distance(query), reference.distance(query))
    assert again.percentile(0) == 0 and again.percentile(np.inf) == 100


@pytest.mark.parametrize(("num", "groups"), [(LEAST - 1, ()), (20, ["one"] * 20), (0, ())])
def test_too_little_to_say_anything(num, groups):
    assert Reference.of(cloud(num), groups) is None


def test_where_most_are_of_one_patient_nothing_is_said():
    """Distances to the few images of others would be no measure of a new patient's."""
    names = ["p0"] * 195 + ["p1"] * 5
    assert Reference.of(cloud(200), names) is None
    assert Reference.of(cloud(200), ["p0"] * 140 + ["p1"] * 60) is not None
