import pytest
import torch

from hemaml.core.errors import ConfigError
from hemaml.ops.losses import dice_loss, superpixel_metric_loss

ONE, ZERO = torch.tensor(1.0), torch.tensor(0.0)


def metric_loss(embeddings, targets, *, a=ONE, b=ZERO, target="similarity", num_pairs=99, seed=0):
    return superpixel_metric_loss(
        embeddings,
        targets,
        a=a,
        b=b,
        target=target,
        num_pairs=num_pairs,
        generator=torch.Generator().manual_seed(seed),
    )


def test_equal_nodes_have_no_similarity_loss():
    embeddings = torch.tensor([[3.0, 4.0]]).expand(6, 2)
    assert metric_loss(embeddings, torch.full((6,), 0.3)).item() == pytest.approx(0, abs=1e-12)


def test_all_pairs_by_hand():
    embeddings = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    targets = torch.tensor([0.0, 0.8])
    a, b = torch.tensor(0.5), torch.tensor(0.1)  # similarity .6 on the diagonal, .1 off it
    similarity = (2 * 0.4**2 + 2 * (0.1 - 0.2) ** 2) / 4  # asks for 1 and .2
    assert metric_loss(embeddings, targets, a=a, b=b).item() == pytest.approx(similarity)
    paper = (0.6**2 + (0.6 - 0.8) ** 2 + 2 * (0.1 - 0.4) ** 2) / 4  # asks for 0, .8 and .4
    printed = metric_loss(embeddings, targets, a=a, b=b, target="paper")
    assert printed.item() == pytest.approx(paper)


def test_samples_are_random_fixed_by_the_seed_and_without_repeats():
    embeddings, targets = torch.randn(50, 4, generator=torch.manual_seed(1)), torch.rand(50)
    first = metric_loss(embeddings, targets, num_pairs=5)
    assert first == metric_loss(embeddings, targets, num_pairs=5)
    assert first != metric_loss(embeddings, targets, num_pairs=5, seed=1)
    everything = [metric_loss(embeddings, targets, num_pairs=50, seed=s).item() for s in (0, 1)]
    assert everything[0] == pytest.approx(everything[1])


def test_anchors_and_references_are_sampled_apart():
    # With one pair of orthogonal nodes, the loss is 0 for a node with itself and (0 - 1)^2 else.
    losses = {
        metric_loss(torch.eye(2), torch.zeros(2), num_pairs=1, seed=s).item() for s in range(9)
    }
    assert losses == {0.0, 1.0}


@pytest.mark.parametrize("target", ["paper", "similarity"])
def test_metric_loss_trains_all_that_is_learnable(target):
    embeddings = torch.randn(20, 3, generator=torch.manual_seed(0), requires_grad=True)
    a, b = torch.tensor(1.0, requires_grad=True), torch.tensor(0.0, requires_grad=True)
    targets = torch.linspace(0, 1, 20)
    metric_loss(embeddings, targets, a=a, b=b, target=target).backward()
    for parameter in (embeddings, a, b):
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0


def test_a_zero_embedding_is_no_nan():
    embeddings = torch.zeros(3, 2, requires_grad=True)
    loss = metric_loss(embeddings, torch.zeros(3))
    loss.backward()
    assert loss.item() == pytest.approx(1)
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("change", [{"num_pairs": 0}, {"target": "cosine"}])
def test_metric_loss_refuses(change):
    with pytest.raises(ConfigError, match=str(next(iter(change.values())))):
        metric_loss(torch.eye(2), torch.zeros(2), **change)


def one_hot(masks):
    return torch.nn.functional.one_hot(masks, 3).movedim(-1, 1).float()


@pytest.fixture
def truth():
    return one_hot(torch.randint(0, 3, (2, 6, 7), generator=torch.manual_seed(0)))


def test_perfect_prediction_has_no_dice_loss(truth):
    assert dice_loss(truth, truth).item() == 0.0


def test_wrong_prediction_has_nearly_all_dice_loss(truth):
    wrong = truth.roll(1, dims=1)
    assert dice_loss(wrong, truth, smooth=0.0).item() == pytest.approx(1.0)


def test_dice_loss_by_hand():
    probabilities = torch.tensor([[[[0.75, 0.5]], [[0.25, 0.5]]]])
    truth = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    # 2 * .75 / 2.25 and 2 * .5 / 1.75; then with one pixel added to both parts.
    plain = 1 - (2 / 3 + 4 / 7) / 2
    assert dice_loss(probabilities, truth, smooth=0.0).item() == pytest.approx(plain)
    smooth = 1 - (2.5 / 3.25 + 2 / 2.75) / 2
    assert dice_loss(probabilities, truth).item() == pytest.approx(smooth)


def test_classes_sum_over_the_whole_batch(truth):
    probabilities = torch.rand(2, 3, 6, 7, generator=torch.manual_seed(1)).softmax(dim=1)
    side_by_side = dice_loss(
        torch.cat([*probabilities[:, None]], -1), torch.cat([*truth[:, None]], -1)
    )
    assert dice_loss(probabilities, truth).item() == pytest.approx(side_by_side.item())


def test_padding_counts_nowhere(truth):
    probabilities = torch.rand(2, 3, 6, 7, generator=torch.manual_seed(1)).softmax(dim=1)
    expected = dice_loss(probabilities, truth)
    for filling in (0.0, 1.0, float("nan")):
        padded = torch.nn.functional.pad(probabilities, (0, 3, 0, 2), value=filling)
        padded.requires_grad_()
        padded_truth = torch.nn.functional.pad(truth, (0, 3, 0, 2), value=1.0)
        valid = torch.nn.functional.pad(torch.ones(2, 1, 6, 7), (0, 3, 0, 2))
        loss = dice_loss(padded, padded_truth, valid=valid)
        assert loss.item() == pytest.approx(expected.item())
        loss.backward()
        assert padded.grad[:, :, 6:].abs().max() == 0
        assert padded.grad[:, :, :, 7:].abs().max() == 0
        assert padded.grad.isfinite().all()
