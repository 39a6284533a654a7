"""The only epoch loop: a generator that trains a network and yields at each validation."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from statistics import fmean
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hemaml.core.errors import Diverged, OutOfMemory
from hemaml.core.objective import Context, Model, State, Step

Batch = TypeVar("Batch")


def fit_network(
    network: nn.Module,
    *,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    batches: Callable[[torch.Generator], Iterable[Batch]],
    loss: Callable[[Batch, torch.Generator], Mapping[str, Tensor]],
    validate: Callable[[], Mapping[str, float]],
    model: Model,
    epochs: int,
    validate_every: int,
    context: Context,
) -> Iterator[Step]:
    """Trains a network, one `Step` at each validation.

    All randomness comes from one generator on the CPU, seeded by the context; a fit that goes on
    from a state continues bit for bit on the CPU.

    Args:
        network: On its device already; in training mode while `loss` is called, else not.
        optimizer: Of the network's parameters.
        scheduler: Advanced after each batch.
        batches: The batches of one epoch, in an order that the generator draws.
        loss: Named scalars of a batch; `loss` is the one that is minimised.
        validate: Scores by name, called after every `validate_every` epochs and after the last.
        model: What the steps carry: a view of `network`.
        epochs: At least 1.
        validate_every: At least 1.
        context: Device, seed, and the state to go on from.

    Yields:
        Metrics: the scores, `train/<name>` (means over the batches since the last validation),
        `train/lr`, and `time/epoch_s` (seconds of training, without validation).

    Raises:
        Diverged: A loss is not finite; the message has the epoch and the value.
        OutOfMemory: The device has no memory left.
    """
    generator = torch.Generator().manual_seed(context.seed)
    first_epoch, index = 0, 0
    if context.state is not None:
        first_epoch, index = _restore(context.state, network, optimizer, scheduler, generator)
    sums: dict[str, list[float]] = defaultdict(list)
    seconds: list[float] = []
    for epoch in range(first_epoch, epochs):
        started = time.perf_counter()
        with _memory_errors(context.device):
            means = _train_epoch(network, optimizer, scheduler, batches, loss, generator, epoch)
        seconds.append(time.perf_counter() - started)
        for name, value in means.items():
            sums[f"train/{name}"].append(value)
        if (epoch + 1) % validate_every and epoch + 1 < epochs:
            continue
        network.eval()
        with torch.inference_mode(), _memory_errors(context.device):
            scores = validate()
        metrics = {
            **scores,
            **{name: fmean(values) for name, values in sums.items()},
            "train/lr": scheduler.get_last_lr()[0],
            "time/epoch_s": fmean(seconds),
        }
        sums.clear()
        seconds.clear()

        def state(epoch: int = epoch, index: int = index) -> State:
            return {
                "epoch": epoch + 1,
                "index": index + 1,
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "generator": generator.get_state(),
            }

        yield Step(index, metrics, model, state)
        index += 1


def _train_epoch(
    network: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    batches: Callable[[torch.Generator], Iterable[Batch]],
    loss: Callable[[Batch, torch.Generator], Mapping[str, Tensor]],
    generator: torch.Generator,
    epoch: int,
) -> dict[str, float]:
    """One pass; mean losses by name."""
    network.train()
    seen: dict[str, list[Tensor]] = defaultdict(list)
    for batch in batches(generator):
        parts = loss(batch, generator)
        optimizer.zero_grad(set_to_none=True)
        parts["loss"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
        for name, value in parts.items():
            seen[name].append(value.detach())
    # Read once an epoch: each read would make a GPU wait.
    means = {name: float(torch.stack(values).mean()) for name, values in seen.items()}
    if not torch.isfinite(torch.tensor(means["loss"])):
        raise Diverged(
            f"the training loss must be finite, but it is {means['loss']} in epoch {epoch}. "
            "A smaller learning rate usually helps."
        )
    return means


def _restore(
    state: State,
    network: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    generator: torch.Generator,
) -> tuple[int, int]:
    """Sets everything back to a state; returns the next epoch and the next step's index."""
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    generator.set_state(state["generator"])
    return int(state["epoch"]), int(state["index"])


@contextmanager
def _memory_errors(device: str) -> Iterator[None]:
    """Turns torch's lack of memory into ours."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"the batch must fit into the memory of {device}, but: {error}") from error
