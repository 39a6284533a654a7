"""The loop on a network of a few numbers, with dropout and batches that are drawn."""

import io

import pytest
import torch
from torch import nn

from hemaml.core.errors import Diverged, OutOfMemory
from hemaml.core.objective import Context
from hemaml.nn.schedules import one_cycle
from hemaml.nn.training import Patience, fit_network

EPOCHS = 6


class Fit:
    """A small regression; `spoil` is called with the index of each loss."""

    def __init__(self, *, state=None, seed=0, lr=0.05, spoil=None, **options):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = nn.Sequential(
                nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 1)
            )
        self.order = torch.Generator().manual_seed(seed)
        self.x = torch.linspace(-1, 1, 80).view(20, 4)
        self.seen, self.losses, self.spoil = 0, [], spoil
        self.steps = fit_network(
            self.network,
            torch.optim.Adam(self.network.parameters(), lr=lr),
            batches=self.batches,
            loss=self.loss,
            model=self,
            context=Context(seed=seed, state=state),
            generators={"order": self.order},
            **{
                "epochs": EPOCHS,
                "schedule": one_cycle(EPOCHS * 4),
                "validate": lambda: {"score": self.network[0].weight.sum().item()},
                **options,
            },
        )

    def batches(self, epoch):
        return self.x[torch.randperm(20, generator=self.order)].split(5)

    def loss(self, x):
        error = (self.network(x) - x.sum(1, keepdim=True)).square().mean()
        if self.spoil:
            error = self.spoil(self.seen, error)
        self.seen += 1
        self.losses.append(error.item())
        size = 0.01 * self.network[0].weight.square().mean()
        return {"loss": error + size, "error": error, "size": size}


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_step_holds_scores_losses_rate_and_time():
    steps = list(Fit().steps)
    assert [step.index for step in steps] == list(range(EPOCHS))
    metrics = steps[-1].metrics
    assert metrics.keys() == {
        "score", "train/loss", "train/error", "train/size", "train/lr", "time/epoch_s",
    }  # fmt: skip
    assert metrics["train/loss"] == pytest.approx(metrics["train/error"] + metrics["train/size"])
    assert metrics["train/lr"] == pytest.approx(0.05 * 1e-4)
    assert metrics["time/epoch_s"] > 0


def test_the_losses_are_means_over_the_batches_of_the_epoch():
    fit = Fit(epochs=2)
    last = list(fit.steps)[-1]
    assert last.metrics["train/error"] == pytest.approx(sum(fit.losses[4:]) / 4)


def test_validation_comes_every_few_epochs_and_after_the_last():
    fit = Fit(epochs=7, validate_every=3)
    seen = [fit.seen // 4 for _ in fit.steps]
    assert seen == [3, 6, 7]


def test_equal_seeds_give_equal_losses_whatever_else_is_drawn():
    alone, beside, other = Fit(), Fit(), Fit(seed=1)
    for _ in zip(alone.steps, other.steps, strict=True):
        torch.rand(3)
    torch.manual_seed(5)
    list(beside.steps)
    assert alone.losses == beside.losses
    assert alone.losses != other.losses


def test_the_global_generator_is_left_as_it_was():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    list(Fit().steps)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_resumed_fit_goes_on_bit_for_bit(stop):
    straight = Fit()
    expected = list(straight.steps)
    first = Fit()
    for _ in range(stop):
        state = next(first.steps).state()
    next(first.steps)  # the state is a copy: what follows does not change it
    second = Fit(state=through_a_file(state))
    resumed = list(second.steps)
    assert [step.index for step in resumed] == list(range(stop, EPOCHS))
    assert second.losses == straight.losses[stop * 4 :]
    for step, other in zip(resumed, expected[stop:], strict=True):
        assert step.metrics["score"] == other.metrics["score"]
        assert step.metrics["train/lr"] == other.metrics["train/lr"]
    for a, b in zip(
        second.network.state_dict().values(), straight.network.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)


def test_a_resume_may_change_the_learning_rate():
    first = Fit(schedule=None)
    state = next(first.steps).state()
    second = Fit(state=state, lr=0.007, schedule=None)
    assert next(second.steps).metrics["train/lr"] == 0.007


def test_a_fit_that_is_resumed_at_its_end_has_no_more_steps():
    state = list(Fit().steps)[-1].state()
    assert list(Fit(state=state).steps) == []


def test_a_loss_that_is_not_finite_ends_the_fit_with_epoch_and_value():
    fit = Fit(spoil=lambda seen, loss: loss * float("nan") if seen == 9 else loss)
    assert next(fit.steps).index == 0
    next(fit.steps)
    with pytest.raises(Diverged, match=r"epoch 2 .*'train/loss': nan"):
        next(fit.steps)


def gpu_is_full(seen, loss):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.\nmore")


def machine_is_full(seen, loss):
    raise RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"
    )


@pytest.mark.parametrize("spoil", [gpu_is_full, machine_is_full])
def test_full_memory_is_an_error_of_ours(spoil):
    with pytest.raises(OutOfMemory, match="allocate.*batch_size"):
        next(Fit(spoil=spoil).steps)


def test_other_errors_stay_what_they_are():
    def broken(seen, loss):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes") as caught:
        next(Fit(spoil=broken).steps)
    assert not isinstance(caught.value, OutOfMemory)


def scores_of(values):
    """Validations that see these values, one after the other."""
    rest = iter(values)
    return lambda: {"score": next(rest)}


VALUES = (0.5, 0.7, 0.7, 0.6, 0.8, 0.1)


@pytest.mark.parametrize(
    ("direction", "validations", "count"),
    [("maximize", 0, 6), ("maximize", 1, 3), ("maximize", 2, 4), ("minimize", 2, 3)],
)
def test_a_fit_ends_after_validations_without_a_better_one(direction, validations, count):
    patience = Patience("score", direction, validations)
    fit = Fit(validate=scores_of(VALUES), patience=patience)
    assert [step.metrics["score"] for step in fit.steps] == list(VALUES[:count])


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_resumed_fit_ends_early_where_it_would_have(stop):
    """Four validations in all: the best before the resume and the ones without count."""
    patience = Patience("score", "maximize", 2)
    first = Fit(validate=scores_of(VALUES), patience=patience)
    for _ in range(stop):
        state = next(first.steps).state()
    second = Fit(state=through_a_file(state), validate=scores_of(VALUES[stop:]), patience=patience)
    assert [step.index for step in second.steps] == list(range(stop, 4))


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_it_multiplies_in_the_precision_and_keeps_the_scale_of_losses(device, precision):
    network = nn.Linear(4, 1).to(device)
    seen = []

    def loss(x):
        found = network(x)
        seen.append(found.dtype)
        return found.float().square().mean()

    def steps(state=None):
        return fit_network(
            network,
            torch.optim.Adam(network.parameters()),
            batches=lambda epoch: [torch.ones(2, 4, device=device)] * 3,
            loss=loss,
            validate=lambda: {"score": 0.0},
            model=None,
            epochs=2,
            context=Context(device=device, state=state),
            precision=precision,
        )

    state = next(steps()).state()
    assert seen == [getattr(torch, precision)] * 3
    assert bool(state["scaler"]) == (precision == "float16")
    assert len(list(steps(through_a_file(state)))) == 1
    assert network.weight.dtype == torch.float32


def test_updates_that_float16_cannot_hold_are_counted_and_an_epoch_without_any_diverges():
    network = nn.Linear(1, 1)
    sizes = iter([1.0, 1e6, 1.0, 1e6, 1e6])
    steps = fit_network(
        network,
        torch.optim.SGD(network.parameters(), lr=1e-3),
        batches=lambda epoch: [torch.ones(1, 1)] * (3 if epoch == 0 else 2),
        loss=lambda x: network(x).float().sum() * next(sizes),
        validate=dict,
        model=None,
        epochs=2,
        context=Context(),
        precision="float16",
    )
    assert next(steps).metrics["train/skipped"] == 1
    with pytest.raises(Diverged, match="all 2 gradients of epoch 1 .*bfloat16"):
        next(steps)


def test_numbers_too_small_to_learn_from_count_as_zero():
    """They would make a processor slow. The caller's arithmetic is as before afterwards."""
    smallest = 5e-324
    assert smallest * 1.0 > 0, "another test left the flag"
    network, seen = nn.Linear(1, 1), []

    def loss(batch):
        seen.append(float(torch.tensor([1e-30]) * torch.tensor([1e-10])))
        return network(batch).sum()

    steps = fit_network(
        network,
        torch.optim.SGD(network.parameters(), lr=0.1),
        batches=lambda epoch: [torch.ones(1, 1)],
        loss=loss,
        validate=dict,
        model=None,
        epochs=1,
        context=Context(),
    )
    list(steps)
    assert seen == [0.0]
    assert smallest * 1.0 > 0
