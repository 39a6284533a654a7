"""Classifiers of cells: where masks come from, what a network sees, and what is saved."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from objectives.masked_cells import cells, disc
from pydantic import ValidationError
from scipy.ndimage import label

from hemaml.core.cache import Cache, array_digest
from hemaml.core.errors import ConfigError, DataError
from hemaml.core.objective import Context
from hemaml.core.task import Fold
from hemaml.data.augment_affine import augment, draw
from hemaml.nn.light_resnet import LightResnet
from hemaml.nn.parameters import count_parameters
from hemaml.objectives.wbc_segmentation import gnn_only, smgnn
from hemaml.objectives.wbc_type import _segmenters
from hemaml.objectives.wbc_type._cells import Frame, cell_rows
from hemaml.objectives.wbc_type._features import described, feature_rows
from hemaml.objectives.wbc_type._segmenters import (
    DrawnMasks,
    TrainedSegmenter,
    WholeImage,
    masks_of,
    segmenter_of,
)
from hemaml.objectives.wbc_type.light_resnet import (
    LightResnetModel,
    Params,
    fit,
    network_input,
)

pytestmark = pytest.mark.usefixtures("one_thread")
SMGNN = "wbc_segmentation.smgnn"
TINY = {"size": 16, "width": 4, "epochs": 1, "segmenters": {SMGNN: {"epochs": 1, "width": 4}}}


def fold_of(train, val, test=None):
    return Fold(train, val, unlabelled=None if test is None else test.inputs())


@pytest.fixture(scope="module")
def fold():
    return fold_of(cells(10), cells(5, seed=1), cells(3, seed=2))


def last(fold, context=None, **params):
    *_, step = fit(Params(**{**TINY, **params}), fold, context or Context())
    return step


def test_the_network_of_three_blocks_is_the_resnet_20_of_he():
    """0.27 million parameters in their table 6; by hand 269,722 with shortcuts without any."""
    assert count_parameters(LightResnet(3, 16, 3, 10)) == (269_722, 269_722)


def test_maps_are_halved_twice():
    network = LightResnet(3, 4, 2, 5)
    shapes = []
    for layer in network.features:
        layer.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape[1:])))
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 5)
    assert shapes[2:9] == [
        (4, 16, 16), (4, 16, 16), (4, 16, 16), (8, 8, 8), (8, 8, 8), (16, 4, 4), (16, 4, 4)
    ]  # fmt: skip


def test_drawn_masks_tell_what_images_do_not():
    train, val = cells(40), cells(20, seed=1)
    how = {"size": 24, "epochs": 25, "validate_every": 25, "width": 8, "turns": False}
    with_masks = last(fold_of(train, val), segmentation="ground_truth", **how)
    without = last(fold_of(train, val), segmentation="none", **how)
    assert with_masks.metrics["accuracy"] >= 0.8 > 0.5 > without.metrics["accuracy"]


def test_the_frame_is_a_square_about_the_cell():
    mask = np.zeros((60, 80), np.uint8)
    mask[20:30, 40:60] = 1
    assert Frame(16, "cell", 0).square(mask) == (15, 40, 20)
    assert Frame(16, "cell", 0.5).square(mask) == (5, 30, 40)
    assert Frame(16, "cell", 2).square(mask) == (-15, 10, 80), "no larger than the image"
    for around, shown in (("image", mask), ("cell", mask * 0)):
        assert Frame(16, around, 0.1).square(shown) == (-10, 0, 80)


def test_a_view_has_colours_and_shares_of_cytoplasm_and_nucleus():
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30], mask[15:25, 15:25] = 1, 2
    image = np.full((40, 40, 3), 200, np.uint8)
    image[mask > 0] = (90, 60, 30)
    view = Frame(20, "cell", 0).view(image, mask)
    assert view.shape == (20, 20, 5)
    assert (view[..., :3] == (90, 60, 30)).all()
    np.testing.assert_array_equal(view[..., 3] > 0, mask[10:30, 10:30] == 1)
    np.testing.assert_array_equal(view[..., 4] > 0, mask[10:30, 10:30] == 2)
    # At the corner of the image: its edge goes on, as background.
    corner = np.zeros((40, 40), np.uint8)
    corner[:10, :10] = 1
    view = Frame(20, "cell", 0.5).view(image, corner)
    assert (view[:5, :5, 3:] == 0).all() and (view[:10, :10, :3] == 200).all()


def test_an_image_without_a_cell_is_not_painted_out():
    image = np.full((40, 40, 3), 200, np.uint8)
    nothing = np.zeros((40, 40), np.uint8)
    view = Frame(20, "cell", 0.1).view(image, nothing)
    assert (view[..., :3] == 200).all()
    assert (view[..., 3] == 255).all() and (view[..., 4] == 0).all()
    np.testing.assert_array_equal(described(image, nothing), described(image, nothing + 1))


def test_what_is_no_cell_is_painted_out_unless_it_is_asked_for():
    views = torch.full((1, 8, 8, 5), 255, dtype=torch.uint8)
    views[:, :4, :, 3:] = 0
    views[:, 4:, :, 4] = 0
    x = network_input(views, Params())
    assert x.shape == (1, 5, 8, 8)
    assert (x[0, :3, :4] == 0).all() and (x[0, :3, 4:] == 1).all()
    assert (network_input(views, Params(masked=False))[0, :3] == 1).all()
    assert network_input(views, Params(mask_channels=False)).shape[1] == 3


def test_no_other_piece_of_the_cell_comes_in_where_it_is_turned():
    mask = np.zeros((60, 60), np.uint8)
    mask[disc(60, (30, 30), 25)] = 2
    view = Frame(48, "cell", 0.1).view(np.full((60, 60, 3), 90, np.uint8), mask)
    views = torch.from_numpy(np.stack([view] * 64))
    turned = augment(views, draw(64, Params().augmentation, torch.Generator().manual_seed(0)))
    nuclei = turned[..., 4].numpy() > 127
    assert {label(nucleus)[1] for nucleus in nuclei} == {1}


def test_without_a_segmenter_the_whole_image_is_cell():
    data = cells(2)
    rows = cell_rows(WholeImage(), Frame(64, "cell", 0.3), data.images, data.ids, Cache.off())[:]
    np.testing.assert_array_equal(rows[..., :3], np.stack(data.images))
    assert (rows[..., 3] == 255).all() and (rows[..., 4] == 0).all()


def test_a_segmenter_is_trained_once_for_a_training_part(fold, tmp_path, monkeypatch):
    trained = []
    usual = smgnn.objective.fit
    counting = replace(smgnn.objective, fit=lambda *a: trained.append(a) or usual(*a))
    monkeypatch.setattr(smgnn, "objective", counting)
    live = [last(fold, Context(seed=s), lr=lr).metrics for s, lr in ((0, 0.01), (1, 0.02))]
    assert len(trained) == 2
    cache = Cache(tmp_path)
    for _ in ("filled", "used"):
        for (seed, lr), expected in zip(((0, 0.01), (1, 0.02)), live, strict=True):
            found = last(fold, Context(seed=seed, cache=cache), lr=lr).metrics
            assert all(found[k] == v for k, v in expected.items() if not k.startswith("time/"))
    assert len(trained) == 3
    last(fold_of(fold.train.subset(range(9)), fold.val), Context(cache=cache))
    assert len(trained) == 4


def test_a_segmenter_of_the_fold_looks_at_training_images_alone(fold):
    val = fold.val
    other = replace(val, drawn=tuple(1 - (mask > 0).astype(np.uint8) for mask in val.drawn))
    one, changed = last(fold), last(fold_of(fold.train, other, fold.unlabelled))
    assert one.metrics["mask_dice"] != changed.metrics["mask_dice"]
    np.testing.assert_array_equal(
        np.stack(one.model.predict(val.images)), np.stack(changed.model.predict(val.images))
    )


def test_images_are_segmented_once(fold, tmp_path, monkeypatch):
    asked = []
    usual = TrainedSegmenter.mask
    monkeypatch.setattr(TrainedSegmenter, "mask", lambda s, i: asked.append(i) or usual(s, i))
    for point in ({}, {"size": 20}, {"around": "image"}):
        last(fold, Context(cache=Cache(tmp_path)), **point)
    assert len(asked) == len(fold.train) + len(fold.val)


@pytest.mark.parametrize("segmentation", ["none", SMGNN, "ground_truth"])
def test_a_saved_model_is_whole(fold, tmp_path, segmentation):
    step = last(fold, segmentation=segmentation)
    step.model.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "config.json"}
    loaded = LightResnetModel.load(tmp_path)
    for part in (fold.val, fold.unlabelled):
        np.testing.assert_allclose(
            loaded.predict(part.images), step.model.predict(part.images), atol=1e-6
        )
    assert loaded.num_trainable == step.model.num_trainable
    assert loaded.segmenter.origin == step.model.segmenter.origin


def test_a_model_of_drawn_masks_says_what_other_images_lack(fold):
    model = last(fold, segmentation="ground_truth").model
    with pytest.raises(DataError, match="has those of 18 images.*models:/wbc_segmentation"):
        model.predict(cells(1, seed=9).images)


def test_data_without_drawn_masks_is_refused_where_they_are_needed(fold):
    bare = replace(fold.train, drawn=())
    for segmentation in ("ground_truth", SMGNN):
        with pytest.raises(DataError, match="has 0 of them for 10 images"):
            last(Fold(bare, bare), segmentation=segmentation)
    assert last(Fold(bare, bare), segmentation="none")


def test_a_recorded_segmenter_is_carried_along(fold, tmp_path):
    params = gnn_only.Params(epochs=1, width=4)
    masked = replace(fold.train, classes=("background", "cytoplasm", "nucleus"),
                     masks=fold.train.drawn)  # fmt: skip
    (*_, trained) = gnn_only.objective.fit(params, Fold(masked, masked), Context())
    trained.model.save(tmp_path)
    name = "wbc_segmentation.gnn_only"
    context = Context(registered=lambda uri: tmp_path, objective_of=lambda uri: name)
    uri = "models:/wbc_segmentation/3"
    step = last(fold, context, segmentation=uri)
    assert (step.model.segmenter.kind, step.model.segmenter.origin) == (name, uri)
    image = fold.val.images[0]
    expected = trained.model.predict([image])[0].argmax(axis=2)
    np.testing.assert_array_equal(step.model.segmenter.mask(image), expected)
    assert step.metrics["segmenter_params"] == trained.model.num_trainable
    other = Context(registered=lambda uri: tmp_path, objective_of=lambda uri: "lymphoma.resnet50")
    with pytest.raises(ConfigError, match="is one of lymphoma.resnet50"):
        last(fold, other, segmentation=uri)
    with pytest.raises(ConfigError, match="needs a tracking store"):
        last(fold, segmentation=uri)


def test_names_of_segmenters_are_checked_before_any_training():
    run = "0123456789abcdef" * 2
    assert Params(segmentation=run).segmentation == f"runs:/{run}"
    with pytest.raises(ValidationError, match="unknown segmentation 'smgnn'; known: .*smgnn"):
        Params(segmentation="smgnn")
    with pytest.raises(ValidationError, match="unknown segmenter"):
        Params(segmenters={"wbc_segmentation.nothing": {}})
    with pytest.raises(ValidationError, match="lrr"):
        Params(segmenters={SMGNN: {"lrr": 1}})
    with pytest.raises(ValidationError, match=rf"segmenters\.{SMGNN}\.lr: .*equal to 1 \(got 5\)"):
        Params(segmenters={SMGNN: {"lr": 5}})
    assert Params(segmentation="none", segmenters={"wbc_segmentation.unet": {"width": 0.25}})


def test_in_force_is_the_segmenter_in_use_with_its_defaults():
    others = {"wbc_segmentation.unet": {"lr": 0.01}}
    for segmentation in ("none", "ground_truth", "models:/cells/1"):
        found = Params(segmentation=segmentation, segmenters=others).in_force()
        assert found == Params(segmentation=segmentation).in_force()
        assert found["segmenters"] == {}
    own = Params(segmenters={**others, SMGNN: {"lr": 0.02}})
    assert own.in_force()["segmenters"] == {SMGNN: smgnn.objective.params(lr=0.02).in_force()}
    assert own.model_dump()["segmenters"].keys() == {*others, SMGNN}, "the record has them all"


def test_a_class_without_training_images_is_no_fault():
    train = cells(8, types=4)
    assert set(train.labels) == {0, 1, 2, 3}
    step = last(Fold(train, cells(5, seed=1)), segmentation="ground_truth")
    assert np.isfinite(step.metrics["train/loss"]) and np.isfinite(step.metrics["accuracy"])


def test_the_digest_of_a_segmenter_is_of_all_that_masks_depend_on(fold):
    drawn = DrawnMasks.of([fold.train])
    changed = list(fold.train.drawn)
    changed[0] = disc(64, (20, 20), 9).astype(np.uint8)
    assert drawn.digest != DrawnMasks.of([replace(fold.train, drawn=tuple(changed))]).digest
    assert drawn.digest == DrawnMasks.of([fold.train.subset(range(9, -1, -1))]).digest
    one, other = (
        segmenter_of(Params(segmenters={SMGNN: {"epochs": 1, "width": w}}), fold, Context())
        for w in (4, 5)
    )
    assert len({one.digest, other.digest, drawn.digest}) == 3


def test_a_change_of_the_code_trains_the_segmenter_anew(fold, tmp_path, monkeypatch):
    params, context = Params(**TINY), Context(cache=Cache(tmp_path))
    first = segmenter_of(params, fold, context)
    monkeypatch.setattr(smgnn, "objective", replace(smgnn.objective, fit=None))
    assert segmenter_of(params, fold, context).digest == first.digest
    monkeypatch.setattr(_segmenters, "code_digest", lambda: "other")
    with pytest.raises(TypeError):
        segmenter_of(params, fold, context)


def test_a_change_of_the_code_makes_masks_and_what_is_made_of_them_anew(tmp_path, monkeypatch):
    """What only a prediction does, as the clean-up, leaves a segmenter's files as they are."""
    data, cache = cells(2), Cache(tmp_path)
    given = data.images, data.contents(), cache

    def made(code, value):
        monkeypatch.setattr(_segmenters, "code_digest", lambda: code)
        monkeypatch.setattr(TrainedSegmenter, "mask", lambda s, i: WholeImage().mask(i) * value)
        segmenter = TrainedSegmenter(SMGNN, {"weights": np.zeros(4, np.uint8)}, "")
        frame = Frame(16, "cell", 0)
        return [
            np.stack(masks_of(segmenter, *given)),
            cell_rows(segmenter, frame, *given)[:],
            feature_rows(segmenter, *given)[:],
        ]

    before, cached, after = made("old", 1), made("old", 2), made("new", 2)
    for one, same, other in zip(before, cached, after, strict=True):
        np.testing.assert_array_equal(one, same)
        assert (one != other).any()


def test_predictions_over_turns_do_not_depend_on_how_the_cell_lies(fold):
    model = last(fold, segmentation="ground_truth", epochs=2).model
    view = next(model._views(fold.val.images[:1]))
    turned = torch.rot90(view, 1, (1, 2)).contiguous()
    np.testing.assert_allclose(model._probabilities(view), model._probabilities(turned), atol=1e-5)
    assert array_digest(view.numpy()) != array_digest(turned.numpy())
