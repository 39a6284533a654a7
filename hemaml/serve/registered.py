"""What `Champions` asks of the registry: which versions are meant, and what is known of them."""

import math
from collections.abc import Mapping, Sequence

from hemaml.card import score_names
from hemaml.core.errors import ConfigError
from hemaml.core.tracker import REGISTERED
from hemaml.data.splits import KIND_IN_WORDS
from hemaml.explaining import has_maps
from hemaml.serve.answers import Calibration, Explains, ModelFacts, Part, Score, SplitFacts
from hemaml.serve.champions import Store
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.opened_model import OpenedModel, open_registered
from hemaml.tracking.registry import CHAMPION, Registry, Version

NEIGHBOURHOOD = "neighbourhood"
"""Of the objectives whose models look at neighbours; they name it."""
ECE = "ece"
OBJECTIVE = "objective"
"""Tag of the versions that hemaml made."""


class Registered(Store):
    """The registry of a store.

    Args:
        uri: Of the store.
        models: As in `ServeSettings`.

    Raises:
        ConfigError: Two of them are of one name.
    """

    def __init__(self, uri: str, models: Sequence[str]) -> None:
        self.uri = uri
        self._registry = Registry(uri)
        named = [one.removeprefix(REGISTERED).partition("/")[0].partition("@")[0] for one in models]
        if len(set(named)) < len(named):
            raise ConfigError(
                f"each registered model is served once, but got {', '.join(models)}. "
                "Name one version or alias of each."
            )
        self._models = tuple(models)

    def wanted(self) -> Sequence[Version]:
        """See `Store`."""
        names = self._models or self._registry.names()
        found = [self._meant(name) for name in names]
        return [v for v in found if v is not None and (self._models or OBJECTIVE in v.tags)]

    def opened(self, version: Version) -> OpenedModel:
        """See `Store`."""
        return open_registered(self._tracker(version), version.uri)

    def facts(self, version: Version, opened: OpenedModel) -> ModelFacts:
        """See `Store`."""
        tags, kind = version.tags, version.tags["split.kind"]
        metrics = self._metrics(version)
        ece = metrics.get(ECE)
        return ModelFacts(
            name=version.name,
            version=version.number,
            uri=version.uri,
            alias=self._alias(version),
            task=opened.objective.task.name,
            kind="segmentation" if opened.segments else "classification",
            objective=opened.name,
            data=tags["data"],
            classes=list(opened.classes),
            metrics=metrics,
            split=SplitFacts(
                kind=kind,
                leaky=tags["split.leaky"] != "false",
                text=KIND_IN_WORDS[kind],  # type: ignore[index]
            ),
            card=version.card,
            explains=_explains(opened),
            novelty=opened.reference is not None,
            calibration=None if ece is None else Calibration(ece=ece.value, part=ece.part),
        )

    def _meant(self, model: str) -> Version | None:
        name, _, number = model.removeprefix(REGISTERED).partition("/")
        if number:
            return self._registry.by_uri(model)
        name, _, alias = name.partition("@")
        return self._registry.by_alias(name, alias or CHAMPION)

    def _alias(self, version: Version) -> str | None:
        for model in self._models:
            name, _, alias = model.removeprefix(REGISTERED).partition("@")
            if name.partition("/")[0] == version.name:
                return None if "/" in name else alias or CHAMPION
        return CHAMPION

    def _metrics(self, version: Version) -> dict[str, Score]:
        """Scores on validation; over them those on the held-out part, where it was looked at."""
        tracker = self._tracker(version)
        found = _scores(tracker.get(version.run_id).metrics, "validation")
        if look := version.tags.get(f"{CHAMPION}.by"):
            recorded = tracker.get(look).metrics
            prefix = "held_out/"
            held = {n.removeprefix(prefix): v for n, v in recorded.items() if n.startswith(prefix)}
            ends = {n: v for n, v in recorded.items() if n.startswith("ci/")}
            found |= _scores(held | ends, "held out")
        return found

    def _tracker(self, version: Version) -> MlflowTracker:
        """One that reads: any task's will do, so that of the model's, which exists."""
        return MlflowTracker(self.uri, version.tags[OBJECTIVE].partition(".")[0])


def _scores(metrics: Mapping[str, float], part: Part) -> dict[str, Score]:
    found = {}
    for name in score_names(metrics):
        low, high = (metrics.get(f"ci/{name}_{end}") for end in ("low", "high"))
        if math.isfinite(metrics[name]):
            found[name] = Score(value=metrics[name], low=low, high=high, part=part)
    return found


def _explains(opened: OpenedModel) -> Explains | None:
    if opened.segments:
        return "contours"
    if NEIGHBOURHOOD in opened.objective.figures:
        return "neighbours"
    return "grad_cam" if has_maps(opened.name) else None
