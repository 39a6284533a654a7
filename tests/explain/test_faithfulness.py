"""Numbers of explanations move the way they should where what a network uses is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from explain.tissue import Tissue, dataset, network, tissue

from hemaml.explain import faithfulness
from hemaml.explain.faithfulness import chosen, curve, heat_of, measured, randomised
from hemaml.explain.heat_maps import explained
from hemaml.ops.heat_scores import area_under


class Violet(Tissue):
    """Class 1 is as probable as there are violet pixels; its maps are the network's."""

    def normalise(self, pixels):
        violet = (pixels.float()[..., 0] < 160).float().mean(dim=(1, 2))
        self.last = violet
        return super().normalise(pixels)


@pytest.fixture
def violet(monkeypatch):
    model = Violet(network())

    def seen(net, normalise, pixels, **_):
        normalise(torch.from_numpy(np.ascontiguousarray(pixels)))
        share = model.last.numpy() * 4
        return None, np.stack([1 - share, share, 0 * share], axis=1)

    monkeypatch.setattr(faithfulness, "seen", seen)
    return model


def areas(model, heat):
    image, _ = tissue()
    (found,) = explained(model, [image])
    found = replace(found, heat=heat.astype(np.float32), target=1)
    views = model.views(image)
    return [area_under(curve(model, views, found, inserted=i)) for i in (False, True)]


@pytest.mark.parametrize("tiles", [0, 2])
def test_a_right_map_deletes_fast_and_inserts_fast(violet, tiles):
    violet.tiles = tiles
    _, inside = tissue()
    right, wrong = areas(violet, inside), areas(violet, ~inside)
    blank = areas(violet, np.zeros(inside.shape))
    assert right[0] < blank[0] < wrong[0]
    assert right[1] > blank[1] > wrong[1]


def test_a_curve_begins_and_ends_with_what_it_says():
    image, _ = tissue()
    model = Tissue(network())
    (found,) = explained(model, [image])
    whole = found.probabilities[found.target]
    deletion = curve(model, model.views(image), found, inserted=False)
    insertion = curve(model, model.views(image), found, inserted=True)
    assert len(deletion) == len(insertion) == faithfulness.STEPS + 1
    assert deletion[0] == pytest.approx(whole, abs=1e-6)
    assert insertion[-1] == pytest.approx(whole, abs=1e-6)
    assert deletion[-1] != pytest.approx(whole, abs=1e-3)


@pytest.mark.parametrize(("tiles", "num"), [(0, 16), (2, 4), (4, 3)])
def test_the_cost_is_bounded_by_views_and_each_class_is_measured(tiles, num):
    data = dataset(24)
    found = chosen(Tissue(network(), tiles=tiles), data)
    assert len(found) == num == len(set(found))
    assert {data.labels[index] for index in found} == {0, 1, 2}


def test_all_numbers_are_shares_and_the_same_again():
    model, data = Tissue(network(), size=32), dataset(4)
    found = measured(model, data)
    assert sorted(found) == [
        "explain/deletion", "explain/insertion", "explain/nuclei_area", "explain/nuclei_energy",
        "explain/nuclei_pointing", "explain/sanity_similarity",
    ]  # fmt: skip
    assert -1 <= found.pop("explain/sanity_similarity") <= 1
    assert all(0 <= value <= 1 for value in found.values())
    assert measured(model, data).items() >= found.items()


def test_random_weights_replace_the_topmost_and_leave_the_network_alone():
    net = network()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    for stages, first in ((0, "head."), (1, "backbone.layer4."), (None, "backbone.stem.")):
        other = randomised(net, 0, stages=stages).state_dict()
        changed = {k for k in before if not torch.equal(before[k], other[k])}
        assert any(k.startswith("head.") for k in changed)
        assert any(k.startswith(first) for k in changed)
        if stages is not None:
            tops = ("head.", "backbone.layer4.")[: stages + 1]
            assert all(k.startswith(tops) for k in changed)
        else:
            convolutions = {k for k, v in before.items() if v.ndim == 4}
            assert convolutions <= changed
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_a_network_like_itself_is_similar_and_a_random_one_less():
    image, _ = tissue()
    model = Tissue(network(), size=96)
    (found,) = explained(model, [image])
    same = heat_of(model, model.network, image, found.target)
    np.testing.assert_allclose(same, found.heat, atol=1e-6)
    strange = heat_of(model, randomised(model.network, 0), image, found.target)
    assert faithfulness.rank_similarity(found.heat, strange) < 0.95
