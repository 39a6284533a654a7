import io

import numpy as np
import pytest
import torch
from explain.smears import Known, dataset, skilled
from PIL import Image
from sklearn.metrics import silhouette_score

from hemaml.explain import projection


@pytest.fixture
def plain_umap(monkeypatch):
    """UMAP takes 17 s to import: the first two features stand in for it."""
    monkeypatch.setattr(projection, "umap", lambda features: features[:, :2])


def test_what_is_apart_stays_apart_and_what_is_mixed_stays_mixed():
    data = dataset([i % 2 for i in range(40)])
    stages = Known(data, skilled(data)).embed(data.images)
    places = {name: projection.t_sne(features) for name, features in stages.items()}
    assert silhouette_score(places["graph"], data.labels) > 0.6
    assert silhouette_score(places["backbone"], data.labels) < 0.2
    np.testing.assert_array_equal(places["graph"], projection.t_sne(stages["graph"]))


@pytest.mark.slow
def test_umap_keeps_classes_apart(one_thread):
    data = dataset([i % 2 for i in range(30)])
    features = Known(data, skilled(data)).embed(data.images)["graph"]
    assert silhouette_score(projection.umap(features), data.labels) > 0.6
    assert projection.umap(features[:5]).shape == (5, 2)
    assert torch.get_num_threads() == 1, "numba sets OpenMP's threads for the whole process"


@pytest.mark.parametrize("num", [5, 40])
def test_a_panel_a_stage_and_method(num, plain_umap, monkeypatch):
    pages = []
    draw_page = projection.to_png
    monkeypatch.setattr(projection, "to_png", lambda page: pages.append(page) or draw_page(page))
    data = dataset([i % 2 for i in range(num)])
    (picture,) = projection.draw(Known(data, skilled(data)), data)
    titles = {text.get_text() for text in pages[0].texts}
    assert {f"{m} of {s}" for m in ("t-SNE", "UMAP") for s in ("backbone", "graph")} <= titles
    assert [len(axes.collections[0].get_offsets()) for axes in pages[0].axes] == [num] * 4
    pixels = np.asarray(Image.open(io.BytesIO(picture.png)))
    assert (pixels[:, -10:] == 255).all()
    assert "smear-004" in picture.html
    assert "<script src=" not in picture.html


def test_large_sets_are_sampled(plain_umap, monkeypatch):
    monkeypatch.setattr(projection, "MOST", 20)
    data = dataset([0] * 10 + [1] * 50)
    seen = []
    monkeypatch.setattr(projection, "_html", lambda shown, *_: seen.append(shown) or "")
    projection.draw(Known(data, skilled(data)), data)
    assert sorted(seen[0].labels) == [0] * 10 + [1] * 10


def test_equal_features_do_not_break_it():
    assert np.isfinite(projection.t_sne(np.ones((12, 4), np.float32))).all()


def test_of_too_few_images_nothing_is_drawn():
    data = dataset([0, 1])
    assert projection.draw(Known(data, skilled(data)), data) == []
