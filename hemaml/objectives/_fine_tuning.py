"""How every image classifier is trained, and the objective that is made of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from hemaml.core.dataset import Dataset
from hemaml.core.objective import Context, Objective, Step
from hemaml.core.seeding import derive_seed
from hemaml.core.task import Fold, Task
from hemaml.data.class_weights import class_weights
from hemaml.nn.allocation import keep_freed_memory
from hemaml.nn.backbones import Loaded, load_backbone
from hemaml.nn.classifier import ImageClassifier
from hemaml.nn.schedules import one_cycle
from hemaml.nn.training import Patience, fit_network
from hemaml.objectives._fine_tuned import FineTunedModel, FineTuning, files, size_for
from hemaml.objectives._prepared import EpochBatches, Prepared, prepared, prepared_at_random


def fine_tuning(
    task: Task,
    params: type[FineTuning],
    *,
    num_classes: int,
    figures: Sequence[str] = ("grad_cam",),
    examples: Sequence[Mapping[str, object]],
) -> Objective:
    """The objective of a task with these parameters.

    Args:
        task: Any classification of images.
        params: Their defaults and the augmentation are what differs between objectives.
        num_classes: Of the task's usual data, for the parameter count.
        figures: As in `Objective`.
        examples: As in `Objective`.
    """
    return Objective(
        task=task,
        params=params,
        model=FineTunedModel,
        fit=partial(fit, task),
        size=partial(size_for, num_classes),
        mutable=frozenset({"lr", "lr_backbone"}),
        files=files,
        figures=tuple(figures),
        examples=tuple(examples),
    )


def fit(task: Task, params: FineTuning, fold: Fold, context: Context) -> Iterator[Step]:
    """Trains head and unfrozen blocks on a fold.

    What frozen blocks make of images is computed once and kept where nothing augments them.

    Raises:
        ConfigError: The weights cannot be had.
        DataError: A class has no training images and classes are weighted; images do not suit the
            tiles.
        Diverged: The loss is not finite.
        OutOfMemory: No memory for a batch.
    """
    keep_freed_memory()
    seed = derive_seed(context.seed, "weights")
    loaded = load_backbone(params.backbone, params.weights, context.registered, seed=seed)
    network = _with_head(loaded, params, len(fold.train.classes), seed)
    kept = network.num_frozen if params.cache_boundary else 0
    known = prepared(fold.val, loaded, params.views, kept, context)
    train = _train_part(params, fold.train, loaded, kept, context)
    network.to(context.device)
    model = FineTunedModel(params, network, fold.train.classes, loaded.origin, known)
    draws = {
        name: torch.Generator().manual_seed(derive_seed(context.seed, name))
        for name in ("order", "augmentation")
    }
    # Batches differ by one image, and one image alone has no deviation to normalise by.
    num_images = len(fold.train)
    num_batches = max(1, min(-(-num_images // params.batch_size), num_images // 2))
    one = params.schedule == "one_cycle"
    yield from fit_network(
        network,
        _optimiser(network, params),
        batches=EpochBatches(
            train,
            fold.train.labels,
            num_batches,
            params.augmentation,
            loaded.architecture,
            context.device,
            draws,
        ),
        loss=_loss(network, fold.train, params, train.stage, context.device),
        validate=lambda: task.score(model, fold.val),
        model=model,
        epochs=params.epochs,
        validate_every=params.validate_every,
        schedule=one_cycle(params.epochs * num_batches) if one else None,
        generators=draws,
        patience=Patience(task.primary, task.direction, params.patience),
        precision=params.precision,
        context=context,
    )


def _train_part(
    params: FineTuning, data: Dataset, loaded: Loaded, kept: int, context: Context
) -> Prepared:
    if params.tiles and params.tile_choice == "random":
        return prepared_at_random(data, params.views, context)
    stage = 0 if params.augmentation.changes_anything else kept
    return prepared(data, loaded, params.views, stage, context)


def _with_head(loaded: Loaded, params: FineTuning, num_classes: int, seed: int) -> ImageClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "head"))
        return ImageClassifier(
            loaded.network,
            dim=loaded.dim,
            num_classes=num_classes,
            unfrozen=params.unfrozen_blocks,
            dropout=params.dropout,
            hidden=params.hidden,
        )


def _optimiser(network: ImageClassifier, params: FineTuning) -> torch.optim.Optimizer:
    unfrozen = [p for p in network.backbone.parameters() if p.requires_grad]
    groups = [{"params": list(network.head.parameters()), "lr": params.lr}]
    if unfrozen:
        groups.append({"params": unfrozen, "lr": params.lr * params.lr_backbone})
    return torch.optim.AdamW(groups, weight_decay=params.weight_decay, fused=True)


def _loss(
    network: ImageClassifier, data: Dataset, params: FineTuning, stage: int, device: str
) -> Callable[[tuple[Tensor, Tensor]], Tensor]:
    weights: Tensor | None = None
    if params.class_weights:
        weights = torch.from_numpy(class_weights(data.labels, len(data.classes))).to(device)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        x, labels = batch
        smoothing = params.label_smoothing
        return functional.cross_entropy(
            network(x, stage), labels, weights, label_smoothing=smoothing
        )

    return loss
