"""The graph network as a model: what it may know, what it answers, what it reports beside it."""

from dataclasses import replace

import numpy as np
import pytest

from hemaml.core.cache import Cache
from hemaml.core.errors import ConfigError
from hemaml.core.objective import Context
from hemaml.core.task import Fold
from hemaml.data.smear_types import SmearTypes, read
from hemaml.nn.backbones import load_backbone
from hemaml.objectives.leukemia import _arms, _gcn_model
from hemaml.objectives.leukemia._arms import labelled_nodes
from hemaml.objectives.leukemia.resnet18_gcn import GcnModel, Params, fit, objective
from hemaml.tasks import leukemia

SMALL = {"weights": "none", "size": 32, "k": 3, "hidden": 8, "epochs": 6, "validate_every": 3}


@pytest.fixture(scope="module")
def data():
    return read(SmearTypes(classes="binary", patients=12, per_patient=4, size=40))


@pytest.fixture(scope="module")
def fold(data):
    test = data.subset(range(40, 48))
    return Fold(data.subset(range(32)), data.subset(range(32, 40)), unlabelled=test.inputs())


def last(params, fold, **context):
    *_, step = fit(params, fold, Context(**context))
    return step


@pytest.fixture(scope="module")
def step(fold):
    return last(Params(**SMALL), fold)


def test_answers_for_new_images_depend_on_the_image_alone(step, data):
    images = data.subset(range(36, 48)).images
    bank = step.model.bank.features.clone()
    together = np.stack(step.model.predict(images))
    backwards = np.stack(step.model.predict(images[::-1]))[::-1]
    np.testing.assert_allclose(backwards, together, atol=1e-5)
    for index in (0, 7):
        (alone,) = step.model.predict([images[index]])
        np.testing.assert_allclose(alone, together[index], atol=1e-5)
    assert (step.model.bank.features == bank).all()


def test_the_bank_holds_the_training_images_alone(step, fold):
    assert step.model.bank.ids == fold.train.ids
    assert len(step.model.bank.features) == len(fold.train)


def test_each_fit_reports_the_perceptron_and_the_papers_protocol(step, fold, data):
    for prefix in ("", "mlp/", "transductive/"):
        assert {f"{prefix}{name}" for name in ("auc", "accuracy", "ece")} <= set(step.metrics)
    views = {name: view(step.model) for name, view in objective.views.items()}
    for name, view in views.items():
        scores = leukemia.score(view, fold.val)
        assert scores["auc"] == pytest.approx(step.metrics[f"{name}/auc"], abs=1e-6), name
    test = data.subset(range(40, 48))
    assert leukemia.score(views["transductive"], test)["accuracy"] >= 0
    with pytest.raises(ConfigError, match="1 of 2 were not"):
        views["transductive"].predict([test.images[0], fold.train.images[0]])


def test_what_was_not_trained_is_no_view(fold):
    model = last(Params(**SMALL, transductive=False, mlp=False), fold).model
    assert [view(model) for view in objective.views.values()] == [None, None]


def test_views_come_back_from_a_file(step, fold, tmp_path):
    step.model.save(tmp_path)
    loaded = GcnModel.load(tmp_path)
    for view in objective.views.values():
        before, after = (
            view(step.model).predict(fold.val.images),
            view(loaded).predict(fold.val.images),
        )
        np.testing.assert_allclose(before, after, atol=1e-5)


def test_the_frozen_backbone_is_written_once_whole_and_can_be_started_from(step, tmp_path):
    step.model.save(tmp_path)
    (frozen,) = tmp_path.glob("backbone-*.safetensors")
    before = frozen.stat()
    step.model.save(tmp_path)
    assert frozen.stat().st_mtime_ns == before.st_mtime_ns
    assert not list(tmp_path.glob("*.part"))
    started = load_backbone("resnet18", str(tmp_path), lambda uri: tmp_path)
    assert started.digest == step.model.loaded.digest


def test_figures_of_one_data_set_embed_it_once(step, data, monkeypatch):
    calls = []
    embedded = _gcn_model._embedded
    monkeypatch.setattr(_gcn_model, "_embedded", lambda *a: calls.append(len(a[1])) or embedded(*a))
    images = tuple(image.copy() for image in data.images[:3])
    first, again = step.model.predict(images), step.model.predict(images)
    np.testing.assert_array_equal(first, again)
    step.model.embed(images)
    assert calls == [3]
    step.model.predict(list(images))
    assert calls == [3, 3], "a list may have changed"


def test_labels_that_are_not_used_change_nothing(fold):
    """Not even through the transductive graph: turn all of them round."""
    params = Params(**SMALL, labels=0.25, draw=3)
    used = set(labelled_nodes(fold.train.labels, 0.25, _seed(3)).tolist())
    assert len(used) == 8
    turned = [y if i in used else 1 - y for i, y in enumerate(fold.train.labels)]
    other = replace(fold, train=replace(fold.train, labels=tuple(turned)))
    kept, changed = last(params, fold), last(params, other, seed=0)
    same = {name for name in kept.metrics if not name.startswith("time/")}
    # Which labels are drawn depends on the labels themselves, so the same ones are asked for.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "hemaml.objectives.leukemia.resnet18_gcn.labelled_nodes",
            lambda *_: np.array(sorted(used)),
        )
        changed = last(params, other)
    assert {n: kept.metrics[n] for n in same} == {n: changed.metrics[n] for n in same}


def _seed(draw):
    from hemaml.core.seeding import derive_seed

    return derive_seed(draw, "labels")


def test_a_share_of_the_labels_is_one_of_each_class_and_fixed_by_the_draw():
    labels = [0] * 90 + [1] * 10
    for share, counts in ((0.01, [1, 1]), (0.1, [9, 1]), (1, [90, 10])):
        nodes = labelled_nodes(labels, share, seed=5)
        assert np.bincount(np.array(labels)[nodes]).tolist() == counts
        assert np.array_equal(nodes, labelled_nodes(labels, share, seed=5))
    assert not np.array_equal(labelled_nodes(labels, 0.3, 1), labelled_nodes(labels, 0.3, 2))


def test_neighbours_are_searched_once_for_every_k(fold, tmp_path, monkeypatch):
    searches = []
    search = _arms.knn_graph

    def counted(unit, k):
        searches.append(len(unit))
        return search(unit, k)

    monkeypatch.setattr(_arms, "knn_graph", counted)
    cache = Cache(tmp_path)
    for k in (2, 3, 9):
        last(Params(**{**SMALL, "k": k}), fold, cache=cache)
    assert sorted(searches) == [32, 48]  # the bank, and the graph with what is asked for


def test_a_graph_needs_more_images_than_neighbours(fold):
    with pytest.raises(ConfigError, match=r"1 <= k <= 31.*got k=32"):
        last(Params(**{**SMALL, "k": 32}), fold)


def test_the_neighbourhood_names_the_nearest_with_their_weights(step, data):
    image = data.images[45]
    found = step.model.neighbourhood(image)
    assert len(found.ids) == len(found.labels) == len(found.weights) == 3
    assert list(found.similarities) == sorted(found.similarities, reverse=True)
    assert all(0 <= weight <= 1 for weight in found.weights)
    assert found.thumbnails[0].shape == (48, 48, 3)
    own = step.model.neighbourhood(data.images[3])
    assert own.ids[0] == data.ids[3] and own.similarities[0] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("conv", ["gcn", "gat", "sage", "cheb"])
def test_all_three_networks_learn_from_features_that_tell(fold, monkeypatch, conv):
    """In the place of embeddings: noise around a centre for each class."""
    centres = np.random.default_rng(0).standard_normal((2, 512))
    labels = dict(zip(fold.train.contents(), fold.train.labels, strict=True))
    labels |= dict(zip(fold.val.contents(), fold.val.labels, strict=True))

    def features(loaded, images, digests, size, context):
        noise = np.random.default_rng(len(digests)).standard_normal((len(digests), 512)) * 2
        return (centres[[labels.get(d, 0) for d in digests]] + noise).astype(np.float32)

    monkeypatch.setattr("hemaml.objectives.leukemia.resnet18_gcn._rows", features)
    point = {"epochs": 60, "validate_every": 20, "lr": 0.01, "conv": conv, "labels": 0.5}
    metrics = last(Params(**{**SMALL, **point}), fold).metrics
    assert all(metrics[f"{prefix}auc"] > 0.9 for prefix in ("", "mlp/", "transductive/"))
