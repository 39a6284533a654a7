"""The one epoch loop of all networks; what differs between tasks comes in as functions."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from hemaml.core.errors import Diverged, OutOfMemory
from hemaml.core.objective import Context, Model, State, Step
from hemaml.core.task import Direction
from hemaml.nn.allocation import keep_freed_memory
from hemaml.nn.schedules import Schedule

B = TypeVar("B")
Losses = Tensor | Mapping[str, Tensor]
"""A scalar to minimise, or parts by name with the scalar to minimise under `loss`."""
DENORMAL = 5e-324
"""The smallest number above 0, unless such numbers count as 0."""
FIRST_SCALE = 1024.0
"""Of losses in float16. The library's own, 65536, costs a short fit its first updates."""
Precision = Literal["float32", "bfloat16", "float16"]
"""What training multiplies in; weights, and predictions, are float32."""


@dataclass(frozen=True, slots=True)
class Patience:
    """When a fit ends early.

    Attributes:
        metric: A key of what `validate` returns.
        direction: Whether more of it is better.
        validations: The fit ends after so many in a row without a better one; 0 for never.
    """

    metric: str
    direction: Direction
    validations: int


def fit_network(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    *,
    batches: Callable[[int], Iterable[B]],
    loss: Callable[[B], Losses],
    validate: Callable[[], Mapping[str, float]],
    model: Model,
    epochs: int,
    context: Context,
    validate_every: int = 1,
    schedule: Schedule | None = None,
    generators: Mapping[str, torch.Generator] | None = None,
    patience: Patience | None = None,
    precision: Precision = "float32",
) -> Iterator[Step]:
    """Trains for some epochs and yields a step for each validation; the last epoch has one.

    Nothing is drawn here but what layers such as dropout take from torch's global generator. That
    is swapped for one of this fit, seeded by the context, so several fits may advance in turns.

    Goes on from `context.state` where there is one. On the CPU the steps are then bit-identical
    to those of a fit that never stopped. The learning rates are those of `optimiser` as it is
    passed, not those of the state, so a resume may change them.

    Args:
        network: What is trained, on the context's device; put into training mode each epoch.
        optimiser: Of the network's parameters.
        batches: Epoch, counted from 0, to its batches; draws from `generators` alone.
        loss: A batch to its loss, on the context's device.
        validate: Scores the network as it is; called between epochs.
        model: The live model of the steps.
        epochs: Epochs in all, those before a resume included.
        context: Device, seed and the state to go on from.
        validate_every: Epochs from one validation to the next.
        schedule: Factor of the learning rates for each batch; None keeps them.
        generators: All that `batches` and `loss` draw from, by name; part of the state.
        patience: Ends the fit early; None never does.
        precision: Of `loss`, on any device. Losses are scaled where it is float16.

    Yields:
        Steps whose metrics are those of `validate`, `train/loss` and `train/<part>` (means over the
        batches of the last epoch), in float16 `train/skipped` (updates of that epoch that were
        lost, since a gradient was too large), `train/lr` (of the first group, at the last batch)
        and `time/epoch_s` (seconds of an epoch without validation, mean since the last step).

    Raises:
        Diverged: The loss of an epoch is not finite, or none of its updates could be made.
        OutOfMemory: The device has no memory left.
    """
    keep_freed_memory()
    run = _Run(network, optimiser, schedule, dict(generators or {}), context, precision)
    if context.state is not None:
        run.load(context.state)
    seconds: list[float] = []
    while run.epoch < epochs and not run.out_of(patience):
        with _out_of_memory_as_ours(context.device):
            started = time.perf_counter()
            means = run.train_epoch(batches(run.epoch), loss)
            seconds.append(time.perf_counter() - started)
            if run.epoch % validate_every and run.epoch < epochs:
                continue
            scores = validate()
        metrics = {
            **scores,
            **means,
            "train/lr": float(optimiser.param_groups[0]["lr"]),
            "time/epoch_s": sum(seconds) / len(seconds),
        }
        seconds.clear()
        run.note(metrics, patience)
        yield Step(run.steps - 1, metrics, model, run.state)


@dataclass
class _Run:
    """A training under way: the tools, and where it stands."""

    network: nn.Module
    optimiser: torch.optim.Optimizer
    schedule: Schedule | None
    generators: dict[str, torch.Generator]
    context: Context
    precision: Precision
    epoch: int = 0
    batch: int = 0
    steps: int = 0
    best: float = -math.inf
    stale: int = 0
    lrs: list[float] = field(init=False)
    randomness: dict[str, Tensor] = field(init=False)
    scaler: torch.amp.GradScaler = field(init=False)

    def __post_init__(self) -> None:
        self.lrs = [float(group["lr"]) for group in self.optimiser.param_groups]
        scaled = self.precision == "float16"
        self.scaler = torch.amp.GradScaler(
            self._device.type, init_scale=FIRST_SCALE, enabled=scaled
        )
        with self._forked():
            torch.manual_seed(self.context.seed)
            self.randomness = self._global_randomness()

    def train_epoch(self, batches: Iterable[B], loss: Callable[[B], Losses]) -> dict[str, float]:
        """One pass over the batches; returns the mean of each part of the loss."""
        self.network.train()
        sums: dict[str, Tensor] = {}
        count = skipped = 0
        with self._own_randomness(), _denormals_as_zero():
            for batch in batches:
                with self._autocast():
                    parts = loss(batch)
                named = {"loss": parts} if isinstance(parts, Tensor) else parts
                skipped += not self._update(named["loss"])
                # Summed on the device: reading each value would make a GPU wait for each batch.
                for name, value in named.items():
                    sums[name] = sums.get(name, 0) + value.detach().double()
                count += 1
        means = {f"train/{name}": float(value) / count for name, value in sums.items()}
        if not all(torch.isfinite(value) for value in sums.values()):
            raise Diverged(
                f"the loss must be finite, but its means in epoch {self.epoch} are {means}. "
                "Lower the learning rate, or look for damaged images."
            )
        if skipped == count:
            raise Diverged(
                f"an epoch must change the network, but all {count} gradients of epoch "
                f"{self.epoch} are beyond {self.precision}. Use `precision: bfloat16`."
            )
        self.epoch += 1
        return means | ({"train/skipped": float(skipped)} if self.scaler.is_enabled() else {})

    def note(self, metrics: Mapping[str, float], patience: Patience | None) -> None:
        """Counts a validation, and whether it was better than all before."""
        self.steps += 1
        if patience is None:
            return
        value = metrics[patience.metric] * (1 if patience.direction == "maximize" else -1)
        self.stale = 0 if value > self.best else self.stale + 1
        self.best = max(value, self.best)

    def out_of(self, patience: Patience | None) -> bool:
        """Whether the last validations were all without a better one."""
        return patience is not None and 0 < patience.validations <= self.stale

    def state(self) -> State:
        """All that a fit of the same point needs to go on; holds no classes."""
        return {
            "network": _copied(self.network.state_dict()),
            "optimiser": _copied(self.optimiser.state_dict()),
            "generators": {name: g.get_state() for name, g in self.generators.items()},
            "randomness": dict(self.randomness),
            "epoch": self.epoch,
            "batch": self.batch,
            "steps": self.steps,
            "best": self.best,
            "stale": self.stale,
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: State) -> None:
        """Goes on from a state; learning rates stay as they were passed."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        for group, lr in zip(self.optimiser.param_groups, self.lrs, strict=True):
            group["lr"] = lr
        for name, generator in self.generators.items():
            generator.set_state(state["generators"][name].cpu())
        # A state of another kind of device lacks the generator of this one; it stays as seeded.
        self.randomness |= {name: value.cpu() for name, value in state["randomness"].items()}
        self.epoch, self.batch, self.steps = state["epoch"], state["batch"], state["steps"]
        self.best, self.stale = state["best"], state["stale"]
        if state["scaler"]:  # empty unless the precision is float16
            self.scaler.load_state_dict(state["scaler"])

    def _update(self, loss: Tensor) -> bool:
        """Whether the network has changed: not where a scaled gradient is no finite number."""
        if self.schedule is not None:
            factor = self.schedule(self.batch)
            for group, lr in zip(self.optimiser.param_groups, self.lrs, strict=True):
                group["lr"] = lr * factor
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.batch += 1
        return self.scaler.get_scale() >= scale

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=getattr(torch, self.precision))

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        with self._forked():
            torch.set_rng_state(self.randomness["cpu"])
            if self._cuda:
                torch.cuda.set_rng_state(self.randomness["cuda"], self._cuda[0])
            yield
            self.randomness = self._global_randomness()

    def _forked(self) -> Any:
        return torch.random.fork_rng(devices=self._cuda)

    def _global_randomness(self) -> dict[str, Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self._cuda:
            states["cuda"] = torch.cuda.get_rng_state(self._cuda[0])
        return states

    @property
    def _device(self) -> torch.device:
        return torch.device(self.context.device)

    @property
    def _cuda(self) -> list[torch.device]:
        return [self._device] if self._device.type == "cuda" else []


@contextmanager
def _denormals_as_zero() -> Iterator[None]:
    """Numbers below 1e-38 count as 0 in this thread, as long as the block lasts.

    Gradients of a network that has nearly learned its task fall there. A processor computes with
    them up to a hundred times slower: epochs took twice as long.
    """
    before = DENORMAL * 1.0 == 0.0  # torch does not tell
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _copied(value: Any) -> Any:
    """Nested containers with copies of their tensors: the originals change in the next epoch."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(item) for item in value]
    return value


@contextmanager
def _out_of_memory_as_ours(device: str) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(device, error) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # what torch says on the CPU
            raise
        raise _out_of_memory(device, error) from error


def _out_of_memory(device: str, error: BaseException) -> OutOfMemory:
    reason = str(error).partition("\n")[0] or "no memory left"
    return OutOfMemory(
        f"a batch must fit into the memory of {device!r}, but: {reason} "
        "Lower `batch_size` or the width of the network."
    )
