"""Numbers of explanations move the way they should where what a network uses is known.

Shape suffixes: N views, H and W sides.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from explain.tissue import Tissue, dataset, network, tissue

from hemaml.explain import faithfulness, heat_maps, sanity_sheet
from hemaml.explain.faithfulness import chosen, curve, heat_of, measured, randomised
from hemaml.explain.heat_maps import explained
from hemaml.ops.heat_scores import area_under, nuclei_mask


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
        "explain/deletion", "explain/images", "explain/insertion", "explain/nuclei_area",
        "explain/nuclei_energy", "explain/nuclei_pointing", "explain/sanity_similarity",
    ]  # fmt: skip
    assert found.pop("explain/images") == 4
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


class Corners(Tissue):
    """Sees a square in each of two corners of an image, and a seventh of it in all."""

    def views(self, image):
        height, width = image.shape[:2]
        return [self._view(image, 0, 0, 22, 22), self._view(image, height - 22, width - 22, 22, 22)]


@pytest.fixture
def by_chance(monkeypatch):
    """Maps have nothing to do with networks, nor with one another."""
    rng = np.random.default_rng(0)

    def drawn(net, maps, *_, **__):
        return rng.random((len(maps), 22, 22), dtype=np.float32)

    for module in (heat_maps, faithfulness):
        monkeypatch.setattr(module, "class_maps", drawn)


def test_maps_by_chance_are_not_similar_however_little_the_tiles_show(by_chance):
    found = measured(Corners(network()), dataset(6))
    assert abs(found["explain/sanity_similarity"]) < 0.2


def test_the_sheet_tells_the_same_similarity(by_chance, monkeypatch):
    pages = []
    monkeypatch.setattr(sanity_sheet, "to_png", lambda page: pages.append(page) or b"")
    sanity_sheet.sanity_sheet(Corners(network()), dataset(3), [0, 1, 2])
    texts = [text.get_text() for text in pages[0].texts]
    told = [float(text) for text in texts if text[:1] in ("+", "-") and text[1:2].isdecimal()]
    assert len(told) == 3 * 6 and abs(np.mean(told)) < 0.2


def test_nuclei_count_where_tiles_show_the_image_and_are_what_a_map_reaches_by_chance(by_chance):
    model, data = Corners(network()), dataset(12)
    found = measured(model, data)
    seen = [nuclei_mask(image)[view.top : view.top + 22, view.left : view.left + 22].mean()
            for image in data.images for view in model.views(image)]  # fmt: skip
    everywhere = np.mean([nuclei_mask(image).mean() for image in data.images])
    assert abs(np.mean(seen) - everywhere) > 0.01, "another number"
    assert found["explain/nuclei_area"] == pytest.approx(np.mean(seen))
    assert found["explain/nuclei_energy"] == pytest.approx(np.mean(seen), abs=0.01)


def test_a_map_without_heat_reaches_what_chance_would(monkeypatch):
    for module in (heat_maps, faithfulness):
        monkeypatch.setattr(
            module, "class_maps", lambda net, maps, *_, **__: np.zeros((len(maps), 4, 4))
        )
    found = measured(Corners(network()), dataset(3))
    area = found["explain/nuclei_area"]
    assert found["explain/nuclei_energy"] == pytest.approx(area)
    assert found["explain/nuclei_pointing"] == pytest.approx(area)


@pytest.mark.parametrize(("num", "tiles", "many", "few"), [(80, 0, 64, 16), (30, 2, 30, 4)])
def test_what_one_pass_gives_rests_on_many_images_and_curves_on_few(
    monkeypatch, num, tiles, many, few
):
    calls = []

    def counted(function):
        def call(*given, **named):
            calls.append(function.__name__)
            return function(*given, **named)

        monkeypatch.setattr(faithfulness, function.__name__, call)

    counted(heat_of)
    counted(curve)
    data = dataset(num, height=32, width=32)
    found = measured(Tissue(network(), size=32, tiles=tiles), data)
    assert calls.count("heat_of") == many
    assert calls.count("curve") == 2 * few
    assert found["explain/images"] == many
