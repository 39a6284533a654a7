"""The SMGNN against what theory says of it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from hemaml.core.cache import Cache
from hemaml.core.errors import DataError, Diverged
from hemaml.core.objective import Context
from hemaml.core.task import Fold
from hemaml.data.augment import NUM_CODES, apply_dihedral, random_dihedral
from hemaml.nn.parameters import count_parameters
from hemaml.objectives.wbc_segmentation import _images, smgnn
from hemaml.objectives.wbc_segmentation._regions import (
    Regions,
    _turned_positions,
    collate,
    padded,
    regions,
)
from hemaml.objectives.wbc_segmentation.smgnn import Params, SmgnnModel, fit, joint_loss
from hemaml.ops.clean_up import clean_up
from hemaml.ops.losses import dice_loss

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = {"epochs": 2, "validate_every": 1, "batch_size": 4, "width": 8, "channels": 4}


@pytest.fixture
def fold(smears):
    return Fold(smears.subset(range(6)), smears.subset(range(6, 9)))


def params(**values):
    return Params.model_validate(values)


def network_of(p, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return p.build().eval()


def items_of(data, p):
    return smgnn.learnable(data, p.oversegmentation, Cache.off())


def losses(p, fold, **context):
    return [step.metrics["train/loss"] for step in fit(p, fold, Context(**context))]


def test_the_default_has_about_the_papers_seven_thousand_parameters():
    assert 6_500 <= smgnn.size(Params()) <= 7_500  # 7e-3 million in table 1
    assert smgnn.size(Params()) == count_parameters(Params().build())[0]


def test_each_part_has_the_parameters_that_its_formula_says():
    network = Params(width=22, channels=16, layers=3).build()
    sizes = {name: count_parameters(child)[0] for name, child in network.named_children()}
    gin = [(num_in + 22) * 22 + 3 * 22 + 1 for num_in in (10, 22, 22)]
    assert sizes == {
        "convolutions": sum(gin),
        "norms": 3 * 2 * 22,
        "mix": 9 * (22 + 3) * 16 + 16,
        "classify": 9 * 16 * 3 + 3,
    }


def test_lambda_is_spelled_as_in_the_paper():
    assert params(**{"lambda": 0.5}).lambda_ == 0.5
    with pytest.raises(ValueError, match="lambda_"):
        params(lambda_=0.5)


@pytest.mark.parametrize("weight", [0, 0.3])
def test_the_joint_loss_is_dice_plus_lambda_times_metric(fold, weight):
    p = params(**{"lambda": weight})
    batch = smgnn.batch_of(items_of(fold.train, p), stretch=True, codes=None)
    network = network_of(p)
    parts = joint_loss(network, batch, p, torch.Generator().manual_seed(0))
    logits, _ = network(batch.regions)
    inside = (batch.regions.labels < len(batch.regions.features))[:, None]
    dice = dice_loss(logits.softmax(1), batch.one_hot, valid=inside)
    torch.testing.assert_close(parts["dice_loss"], dice)
    assert ("metric_loss" in parts) == (weight > 0)
    torch.testing.assert_close(parts["loss"], dice + weight * parts.get("metric_loss", 0))


def test_padding_takes_no_part_in_the_loss(fold):
    p = Params()
    small = items_of(fold.train.subset([0, 2]), p)
    black = np.zeros((90, 60, 3), np.uint8)
    large = smgnn.Labelled(
        regions(black, p.oversegmentation, Cache.off()), np.zeros((90, 60), np.uint8), None
    )
    network = network_of(p)
    alone, _ = network(collate([i.regions for i in small], stretch=True))
    beside, _ = network(collate([i.regions for i in [*small, large]], stretch=True))
    for index, item in enumerate(small):
        rows, columns = item.mask.shape
        torch.testing.assert_close(
            beside[index, :, :rows, :columns], alone[index, :, :rows, :columns]
        )


def test_all_parameters_learn(fold):
    p = params(**QUICK)
    batch = smgnn.batch_of(items_of(fold.train, p), stretch=True, codes=None)
    network = network_of(p)
    joint_loss(network, batch, p, torch.Generator())["loss"].backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("code", range(NUM_CODES))
def test_turning_a_batch_is_turning_its_images(smears, code):
    """A turned image with turned superpixels has the same graph: only positions change."""
    how = Params().oversegmentation
    items = [regions(image, how, Cache.off()) for image in smears.images[:2]]
    turned = collate(items[:1], stretch=True, codes=torch.tensor([code]))
    item = items[0]
    labels = turn(item.labels[..., None], code)[..., 0]
    image = turn(item.image, code)
    centres = smgnn_centres(labels, len(item.features))
    features = np.concatenate([item.features[:, :3], centres], axis=1, dtype=np.float32)
    expected = collate([replace_regions(item, image, labels, features)], stretch=True)
    torch.testing.assert_close(turned.features, expected.features, atol=1e-5, rtol=1e-5)
    assert torch.equal(turned.labels, expected.labels)
    assert torch.equal(turned.pixels, expected.pixels)
    assert torch.equal(turned.graph.neighbours, expected.graph.neighbours)


@pytest.mark.parametrize("code", range(NUM_CODES))
def test_positions_turn_with_images_that_are_no_squares(code):
    rows, columns = np.indices((3, 5), dtype=np.float32)
    image = np.stack([rows - 1, columns - 2], axis=2)  # each pixel holds its own position
    height, width = (5, 3) if code & 4 else (3, 5)
    moved = padded([image], torch.tensor([code]), fill=9)[0]
    content = moved[:, :height, :width].reshape(2, -1).t()
    rows, columns = np.indices((height, width), dtype=np.float32).reshape(2, -1)
    places = torch.from_numpy(np.stack([rows - (height - 1) / 2, columns - (width - 1) / 2], 1))
    codes = torch.full((15,), code)
    assert torch.equal(_turned_positions(content, codes), places)
    assert (moved == 9).sum() == 2 * (moved[0].numel() - 15)


def turn(array, code):
    moved = apply_dihedral(torch.from_numpy(array).permute(2, 0, 1)[None], torch.tensor([code]))
    return moved[0].permute(1, 2, 0).contiguous().numpy()


def smgnn_centres(labels, count):
    rows, columns = np.indices(labels.shape)
    sizes = np.bincount(labels.ravel(), minlength=count)
    means = [np.bincount(labels.ravel(), weights=a.ravel()) / sizes for a in (rows, columns)]
    return np.stack(means, axis=1)


def replace_regions(item, image, labels, features):
    return Regions(image, labels, features, item.starts, item.neighbours, item.quantiles)


def test_a_network_blind_to_position_with_even_kernels_commutes_with_turns(smears):
    """Then no part of it knows a direction, so turning first or last must be the same."""
    p = Params()
    network = network_of(p)
    with torch.no_grad():
        network.convolutions[0].mlp[0].weight[:, 3:5] = 0
        network.convolutions[0].mlp[0].weight[:, 8:10] = 0
        for weight in (network.mix.of_superpixels, network.classify.weight):
            make_even(weight.view(9, -1))
        make_even(network.mix.of_colours.view(-1, 9).t())
    codes = torch.arange(NUM_CODES)
    item = regions(smears.images[0], p.oversegmentation, Cache.off())
    side = len(item.image)
    with torch.no_grad():
        still = network(collate([item] * NUM_CODES, stretch=True))[0][..., :side, :side]
        moved = network(collate([item] * NUM_CODES, stretch=True, codes=codes))[0]
    expected = apply_dihedral(still, codes)
    torch.testing.assert_close(moved[..., :side, :side], expected, atol=1e-4, rtol=1e-4)
    assert (moved[0] - moved[1]).abs().max() > 1e-2


def make_even(taps):
    """Gives the four corners one value, the four sides one, the centre its own."""
    for group in ([0, 2, 6, 8], [1, 3, 5, 7]):
        taps[group] = taps[group].mean(0, keepdim=True)


def test_predictions_do_not_depend_on_what_else_is_predicted(smears):
    p = params(clean_up=False)
    model = SmgnnModel(p, network_of(p))
    odd = np.random.default_rng(0).integers(0, 255, (17, 70, 3), dtype=np.uint8)
    images = [smears.images[0], odd, *smears.images[1:4]]
    together = model.predict(images)
    for image, prediction in zip(images, together, strict=True):
        assert prediction.shape == (*image.shape[:2], 3)
        assert prediction.dtype == np.float32
        np.testing.assert_allclose(prediction, model.predict([image])[0], atol=1e-5)
        np.testing.assert_allclose(prediction.sum(axis=2), 1, atol=1e-5)


def test_many_images_are_predicted_in_several_batches(smears, monkeypatch):
    model = SmgnnModel(Params(), network_of(Params()))
    expected = model.predict(smears.images[:4])
    monkeypatch.setattr(smgnn, "PIXELS_AT_ONCE", 1)
    for one, other in zip(model.predict(smears.images[:4]), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 2)])
def test_tiny_images_are_predicted(shape):
    image = np.full((*shape, 3), 200, np.uint8)
    prediction = SmgnnModel(Params(), network_of(Params())).predict([image])[0]
    assert prediction.shape == (*shape, 3)
    assert np.isfinite(prediction).all()


def test_no_images_are_no_predictions():
    assert SmgnnModel(Params(), network_of(Params())).predict([]) == []


def test_clean_predictions_are_the_cleaned_masks(smears):
    raw = SmgnnModel(params(clean_up=False), network_of(Params(), seed=1))
    clean = SmgnnModel(Params(), raw.network)
    changed = 0
    for before, after in zip(raw.predict(smears.images), clean.predict(smears.images), strict=True):
        mask = before.argmax(2).astype(np.uint8)
        np.testing.assert_array_equal(after.argmax(2), clean_up(mask))
        np.testing.assert_allclose(after.sum(axis=2), 1, atol=1e-5)
        changed += int((clean_up(mask) != mask).sum())
    assert changed > 0


def test_clean_up_settles_pixels_that_were_undecided():
    values = np.zeros((5, 5, 3), np.float32)
    values[..., 0] = 1
    values[1:4, 1:4] = [0, 1, 0]
    values[2, 2] = [0.5, 0.5, 0]  # a hole in cytoplasm; trading places would leave it one
    cleaned = _images.cleaned(values)
    np.testing.assert_array_equal(cleaned[1:4, 1:4].argmax(axis=2), 1)
    np.testing.assert_array_equal(cleaned[2, 2], [0, 1, 0])


def test_equal_seeds_give_equal_losses_bit_for_bit(fold):
    p = params(**QUICK)
    first = losses(p, fold, seed=3)
    torch.manual_seed(99)
    assert losses(p, fold, seed=3) == first
    assert losses(p, fold, seed=4) != first


def test_results_with_and_without_the_cache_are_equal(fold, tmp_path):
    p = params(**QUICK)
    without = losses(p, fold)
    assert losses(p, fold, cache=Cache(tmp_path)) == without
    assert losses(p, fold, cache=Cache(tmp_path)) == without
    assert {use.operation for use in Cache(tmp_path).use()} == {"regions"}


@pytest.mark.parametrize(
    "change", [{"scale": 20}, {"compactness": 9}, {"connectivity": 4}, {"alpha": 2}]
)
def test_the_cache_keeps_other_superpixels_apart(smears, tmp_path, change):
    cache, image = Cache(tmp_path), smears.images[0]
    first = regions(image, Params().oversegmentation, cache)
    other = regions(image, params(**change).oversegmentation, cache)
    fresh = regions(image, params(**change).oversegmentation, Cache.off())
    assert not np.array_equal(first.neighbours, other.neighbours)
    np.testing.assert_array_equal(other.neighbours, fresh.neighbours)
    np.testing.assert_array_equal(other.labels, fresh.labels)


def test_a_resumed_fit_goes_on_bit_for_bit(fold):
    p = params(**QUICK | {"epochs": 4})
    straight = list(fit(p, fold, Context()))
    steps = fit(p, fold, Context())
    next(steps)
    state = next(steps).state()
    resumed = list(fit(p, fold, Context(state=state)))
    assert [step.index for step in resumed] == [2, 3]
    for step, other in zip(resumed, straight[2:], strict=True):
        assert step.metrics["train/loss"] == other.metrics["train/loss"]
        assert step.metrics["dice"] == other.metrics["dice"]


def test_lambda_and_rate_may_change_on_resume(fold):
    p = params(**QUICK)
    state = next(fit(p, fold, Context())).state()
    changed = p.model_copy(update={"lambda_": 10.0, "lr": 1e-5})
    last = list(fit(changed, fold, Context(state=state)))[-1].metrics
    assert last["train/lr"] <= 1e-5
    expected = last["train/dice_loss"] + 10 * last["train/metric_loss"]
    assert math.isclose(last["train/loss"], expected, rel_tol=1e-5)


def test_a_rate_beyond_reason_diverges(fold):
    wild = params(**QUICK | {"epochs": 3, "lr": 1}).model_copy(update={"lr": 1e30})
    with pytest.raises(Diverged, match="epoch"):
        list(fit(wild, fold, Context()))


def test_it_learns_drawn_cells(fold):
    p = params(epochs=20, validate_every=20, batch_size=2)
    (step,) = fit(p, fold, Context())
    assert step.metrics["dice"] > 0.8


def test_a_model_that_is_loaded_predicts_the_same_at_any_batch_size(fold, tmp_path):
    p = params(**QUICK)
    model = list(fit(p, fold, Context()))[-1].model
    model.save(tmp_path)
    loaded = SmgnnModel.load(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "config.json"}
    assert loaded.params == p
    for one, other in zip(
        model.predict(fold.val.images), loaded.predict(fold.val.images), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_an_image_of_a_single_superpixel_is_refused_by_name(fold):
    small = replace(fold.train, images=[i[:20, :20] for i in fold.train.images])
    small = replace(small, masks=[m[:20, :20] for m in fold.train.masks])
    with pytest.raises(DataError, match=r" of 20 x 20 .*`scale: 1024`. Lower `scale`"):
        next(fit(params(scale=1024), Fold(small, fold.val), Context()))


def test_random_turns_are_drawn_when_asked_for(fold):
    p = params(**QUICK)
    assert losses(p, fold) != losses(p.model_copy(update={"augment": False}), fold)
    assert len(set(random_dihedral(100, torch.Generator().manual_seed(0)).tolist())) == NUM_CODES


def test_a_set_of_other_classes_is_refused(fold):
    other = replace(fold.val, classes=("background", "cell"))
    with pytest.raises(ValueError, match="cell"):
        list(fit(params(**QUICK), Fold(fold.train, other), Context()))
