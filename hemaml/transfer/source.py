"""A recorded model to be put to other data: its weights, what it has seen, and its known scores."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from hemaml.core.errors import ConfigError
from hemaml.core.objective import Model, Objective, load_objective
from hemaml.core.tracker import RUN, Record, is_recorded, is_registered
from hemaml.metrics import mean_and_deviation, summary
from hemaml.record import trackers
from hemaml.registering import MODEL, MODEL_RUN
from hemaml.tracking.mlflow_tracker import PARENT, WEIGHTS, MlflowTracker
from hemaml.tracking.registry import OF_MODEL, Registry, Version

KEPT = "a run of `hemaml run`, a finished sweep, an evaluation or one of its splits"


@dataclass(frozen=True)
class Source:
    """A model, or the models of all splits of an evaluation.

    Attributes:
        name: As it was named, an alias as the version that it means.
        tracker: Of its task.
        about: The run that says on what data and with which classes it was trained.
        told: The run to tell of its scores: as it was named, or that of a version.
        runs: Those that trained the models, on the splits of `about`.
        version: The registered version, or None.
    """

    name: str
    tracker: MlflowTracker
    about: Record
    told: Record
    runs: Sequence[Record]
    version: Version | None = None

    @property
    def objective(self) -> Objective:
        """What trained it; the run of a resumed sweep may tell of another winner's."""
        return load_objective(self.runs[0].tags["objective"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Of its predictions, in order."""
        return tuple(json.loads(self.about.tags["classes"]))

    @property
    def logged_model(self) -> str:
        """Its URI; empty where there is none, as of splits and seeds, which keep weights alone."""
        return self.version.tags[OF_MODEL] if self.version else self.told.tags.get(MODEL, "")

    def models(self) -> list[Model]:
        """All models, on the CPU.

        Raises:
            ConfigError: A run kept no model.
        """
        if self.version is not None:
            return [self.objective.model.load(self.tracker.model_weights(self.version.uri))]
        return [self._load(run) for run in self.runs]

    def _load(self, run: Record) -> Model:
        source = run.tags.get("reused_from") or run.id
        if not self.tracker.has_artifact(source, WEIGHTS):
            raise ConfigError(
                f"a transfer needs a run that kept its model, but {run.name} ({run.id}) did not. "
                f"Name {KEPT}, or a registered model."
            )
        with TemporaryDirectory() as folder:
            return self.objective.model.load(self.tracker.download(source, WEIGHTS, Path(folder)))

    @cached_property
    def seen(self) -> frozenset[str]:
        """Digests of all images that trained it, chose its best step, or trained what it began on.

        Of an evaluation, those that any of its models has seen.
        """
        splits = json.loads(self.tracker.read_text(self.about.id, "split.json"))["splits"]
        own = [splits[_place(run)] for run in self.runs]
        images = {image for s in own for part in ("train", "val") for image in s[part]["contents"]}
        older = {value for run in self.runs for value in run.params.values() if is_recorded(value)}
        return frozenset(images).union(*(self.tracker.trained_on(uri) for uri in older))

    @cached_property
    def known(self) -> tuple[str, Mapping[str, tuple[float, float]]]:
        """On which part of its own data it has been scored best, in words, and the scores.

        Test parts before a held-out part before validation, which chose its best step.
        """
        tests = [_below("test/", run.metrics) for run in self.runs]
        if all(tests):
            where = f"test parts of {len(tests)} splits" if len(tests) > 1 else "its test part"
            return where, mean_and_deviation(tests)
        if self.version is not None:
            name, number = self.version.name, str(self.version.number)
            tags = {"kind": "promotion", "registered_model": name, "version": number}
            looked = [_below("held_out/", r.metrics) for r in self.tracker.find(tags)]
            if found := [scores for scores in looked if scores]:
                return "held-out part", mean_and_deviation(found[-1:])
        return "validation", mean_and_deviation([summary(run) for run in self.runs])


def _below(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}


def _place(run: Record) -> int:
    """Which of the recorded splits a run was trained on; of several folds the first is kept."""
    return int(run.tags["trial"]) if run.tags["kind"] == "split" else 0


def open_source(name: str) -> Source:
    """A registered model, or what a run recorded.

    Args:
        name: `models:/name@alias`, `models:/name/version`, `runs:/id` or the id alone; of an
            evaluation all of its splits' models are meant.

    Raises:
        UnknownName: No such registered model or version.
        ConfigError: The run is of a kind that has no model.
        StoreError: No such run or alias.
    """
    any_task = trackers()[0]
    if is_registered(name):
        version = Registry(any_task.uri).by_uri(any_task.fixed_version(name))
        about = any_task.get(version.run_id)
        weights = any_task.get(version.tags[MODEL_RUN])
        # A sweep that was resumed may have another winner by now.
        told = about if about.tags.get(MODEL_RUN) == weights.id else weights
        return Source(version.uri, _tracker(about), about, told, [weights], version)
    name = name.removeprefix(RUN)
    record = any_task.get(name)
    kind = record.tags.get("kind", "")
    if kind == "evaluation":
        tracker = _tracker(record)
        runs = tracker.find({"kind": "split", "outcome": "finished"}, parent=record.id)
        if len(runs) < int(record.tags["splits"]):
            raise ConfigError(
                f"an evaluation is transferred once it has finished, but of {record.name} "
                f"({name}) {len(runs)} of {record.tags['splits']} splits have. Run it again."
            )
        return Source(name, tracker, record, record, runs)
    if kind in ("run", "sweep"):
        weights = any_task.get(record.tags.get(MODEL_RUN) or record.id)
        return Source(name, _tracker(record), record, record, [weights])
    if kind in ("split", "confirm"):
        about = any_task.get(record.tags[PARENT])
        return Source(name, _tracker(record), about, record, [record])
    raise ConfigError(
        f"a transfer needs a model, but {record.name} ({name}) is a run of kind {kind!r}. "
        f"Name {KEPT}, or a registered model."
    )


def _tracker(record: Record) -> MlflowTracker:
    return MlflowTracker(trackers()[0].uri, record.tags["objective"].partition(".")[0])
