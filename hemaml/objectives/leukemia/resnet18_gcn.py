"""Embeddings of a frozen ResNet-18, a graph of nearest neighbours, two graph convolutions.

Images are nodes, joined to the k others that are most alike by the cosine of their embeddings. The
model that is kept is inductive: a new image attaches to the stored bank of training images by its
own k neighbours, without changing it, so that an answer depends on the image alone. Beside it each
fit reports the paper's transductive protocol, in which the images to be classified are nodes of the
graph from the start (`transductive/...`), and a multilayer perceptron of the same widths on the
same embeddings (`mlp/...`): what the graph adds is the difference.

Source: Kapadia and Swarnalatha, hybrid CNN and GNN, stages 1 to 4. They leave k and the form of the
graph's edges open; here an edge goes both ways.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch

from hemaml.core.cache import Cache
from hemaml.core.dataset import Dataset
from hemaml.core.objective import Context, Objective, Step
from hemaml.core.seeding import derive_seed
from hemaml.core.task import Fold
from hemaml.core.types import Float32Array, Int64Array, UInt8Array
from hemaml.data.pixels import resized
from hemaml.nn.backbones import Loaded, frozen_backbone, num_parameters
from hemaml.nn.embeddings import embeddings
from hemaml.nn.parameters import count_unbuilt
from hemaml.nn.training import Patience
from hemaml.nn.weights import file_digest
from hemaml.objectives.leukemia._arms import (
    Arm,
    ArmName,
    How,
    Trained,
    arm,
    labelled_nodes,
    train,
    train_to_the_end,
)
from hemaml.objectives.leukemia._bank import Bank
from hemaml.objectives.leukemia._gcn_model import (
    GcnModel,
    Params,
    build,
    probabilities,
    without_graph,
)
from hemaml.tasks import leukemia

PATIENCE_OF = (leukemia.task.primary, leukemia.task.direction)


def size(params: Params) -> int:
    """Parameters of the frozen backbone and of the graph network for two classes."""
    return num_parameters(params.backbone) + count_unbuilt(lambda: build(params, 2))


def fit(params: Params, fold: Fold, context: Context) -> Iterator[Step]:
    """Trains on a fold; see the module. The two arms to compare with come first, whole.

    Raises:
        ConfigError: The weights cannot be had, or there are not more than k training images.
        DataError: A class has no training images.
        Diverged: The loss of an arm is not finite.
        OutOfMemory: No memory for a graph.
    """
    nodes = _Nodes.of(params, fold, context)
    how = How(
        lr=params.lr,
        weight_decay=params.weight_decay,
        epochs=params.epochs,
        validate_every=params.validate_every,
        patience=Patience(*PATIENCE_OF, params.patience),
    )
    main = nodes.arm("inductive")
    state = dict(context.state or {})
    others = state.pop("others", None) or _train_others(nodes, how)
    model = nodes.model(main, others)

    def validate() -> dict[str, float]:
        model.refresh()
        return {**leukemia.score(model, fold.val), **others["metrics"]}

    for step in train(
        main,
        how,
        num_classes=len(fold.train.classes),
        validate=validate,
        model=model,
        context=replace(context, state=state or None),
    ):
        yield _with_others(step, others)


def _with_others(step: Step, others: Mapping[str, Any]) -> Step:
    """The step with a state that spares a resumed fit the arms that are done."""
    return replace(step, state=lambda: {**step.state(), "others": others})


@dataclass(frozen=True, slots=True)
class _Nodes:
    """The images of a fold as nodes: first those to learn from, then those that are asked for.

    Attributes:
        params: Of the fit.
        fold: What it may see.
        context: What it may use.
        loaded: The backbone.
        train: N x F embeddings of the training images.
        val: Of the validation images.
        unlabelled: Of the images whose labels nobody has.
        labelled: Training images whose labels are used.
    """

    params: Params
    fold: Fold
    context: Context
    loaded: Loaded
    train: Float32Array
    val: Float32Array
    unlabelled: Float32Array
    labelled: Int64Array

    @classmethod
    def of(cls, params: Params, fold: Fold, context: Context) -> Self:
        # Not of the trial's seed: random weights are a choice, and the cache is for all trials.
        loaded = frozen_backbone(params.backbone, params.weights, context.registered)
        asked = fold.unlabelled or fold.val.subset(())
        train, val, unlabelled = (
            _rows(loaded, images, digests, params.size, context)
            for images, digests in (
                (fold.train.images, fold.train.contents()),
                (fold.val.images, fold.val.contents()),
                (asked.images, asked.contents()),
            )
        )
        seed = derive_seed(params.draw, "labels")
        labelled = labelled_nodes(fold.train.labels, params.labels, seed)
        return cls(params, fold, context, loaded, train, val, unlabelled, labelled)

    @property
    def num_classes(self) -> int:
        return len(self.fold.train.classes)

    def arm(self, name: ArmName) -> Arm:
        """An arm with new weights; the inductive one and the perceptron begin alike each time."""
        asked = [self.val, self.unlabelled] if name == "transductive" else []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.context.seed, "weights", name))
            network = build(self.params, self.num_classes, graph=name != "mlp")
        return arm(
            name,
            network,
            np.concatenate([self.train, *asked]),
            self.labelled,
            [self.fold.train.labels[node] for node in self.labelled],
            k=self.params.k,
            context=self.context,
        )

    def model(self, main: Arm, others: Mapping[str, Any]) -> GcnModel:
        """The live model of the inductive arm, with what the others gave."""
        params, data = self.params, self.fold.train
        bank = Bank(
            features=main.x,
            graph=main.graph,
            labels=data.labels,
            ids=data.ids,
            thumbnails=_thumbnails(data, params.thumbnail, self.context.cache),
        )
        mlp = None
        if params.mlp:
            mlp = build(params, self.num_classes, graph=False)
            mlp.load_state_dict(others["mlp"])
        return GcnModel(
            params,
            self.loaded,
            main.network,
            bank,
            data.classes,
            mlp=None if mlp is None else mlp.to(self.context.device),
            seen=dict(zip(others["digests"], others["seen"].numpy(), strict=True)),
            known=(self.fold.val.images, self.val),
        )


def _train_others(nodes: _Nodes, how: How) -> dict[str, Any]:
    """The perceptron and the transductive network, each at its best validation; part of a state."""
    others: dict[str, Any] = {
        "metrics": {}, "digests": [], "seen": torch.empty(0, nodes.num_classes)
    }  # fmt: skip
    if nodes.params.mlp:
        perceptron = nodes.arm("mlp")
        trained = _trained(
            nodes, how, perceptron, lambda: without_graph(perceptron.network, nodes.val)
        )
        others["mlp"] = trained.weights
        others["metrics"] |= {f"mlp/{name}": v for name, v in trained.metrics.items()}
    if nodes.params.transductive:
        graph, num = nodes.arm("transductive"), len(nodes.train)
        end = num + len(nodes.val)
        trained = _trained(nodes, how, graph, lambda: probabilities(graph.logits()[num:end]))
        others["metrics"] |= {f"transductive/{name}": v for name, v in trained.metrics.items()}
        others["seen"] = torch.from_numpy(probabilities(graph.logits()[num:]))
        asked = nodes.fold.unlabelled
        others["digests"] = [*nodes.fold.val.contents(), *(asked.contents() if asked else ())]
    return others


def _trained(nodes: _Nodes, how: How, chosen: Arm, predict: Callable[[], Float32Array]) -> Trained:
    """An arm at its best validation, where it is left."""
    known = _Answers(predict)
    return train_to_the_end(
        chosen,
        how,
        num_classes=nodes.num_classes,
        validate=lambda: leukemia.score(known, nodes.fold.val),
        context=replace(nodes.context, state=None),
    )


@dataclass(frozen=True, slots=True)
class _Answers:
    """Predictions for the validation part, as a score asks for them."""

    answer: Callable[[], Float32Array]

    def predict(self, images: Sequence[UInt8Array]) -> list[Float32Array]:
        return list(self.answer())


def _rows(
    loaded: Loaded,
    images: Sequence[UInt8Array],
    digests: Sequence[str],
    size: int,
    context: Context,
) -> Float32Array:
    """N x F embeddings, from the cache where it has them."""
    if not len(images):
        return np.empty((0, loaded.dim), dtype=np.float32)
    pixels = resized(images, digests, size, context.cache)
    found: Float32Array = embeddings(
        loaded, pixels, digests, context.cache, size=size, device=context.device
    )[:]
    return found


def _thumbnails(data: Dataset, side: int, cache: Cache) -> UInt8Array:
    """N x side x side x 3, or none of them."""
    if not side:
        return np.empty((0, 0, 0, 3), dtype=np.uint8)
    found: UInt8Array = resized(data.images, data.contents(), side, cache)[:]
    return found


objective = Objective(
    task=leukemia.task,
    params=Params,
    model=GcnModel,
    fit=fit,
    size=size,
    mutable=frozenset({"lr"}),
    views={"transductive": GcnModel.transductive, "mlp": GcnModel.without_graph},
    files=lambda params: file_digest(params.weights),
    figures=("neighbourhood",),
    examples=(
        {"weights": "none", "size": 32, "k": 3, "hidden": 8, "epochs": 6, "validate_every": 2},
        {"weights": "none", "size": 32, "k": 2, "hidden": 4, "epochs": 4, "validate_every": 2,
         "conv": "gat", "skip": True, "transductive": False, "thumbnail": 0},
        {"weights": "none", "size": 32, "k": 2, "hidden": 4, "epochs": 4, "validate_every": 2,
         "conv": "sage", "mlp": False, "labels": 0.5},
        {"weights": "none", "size": 32, "k": 2, "hidden": 4, "epochs": 4, "validate_every": 2,
         "conv": "cheb", "patience": 1, "dropout": 0},
    ),
)  # fmt: skip
