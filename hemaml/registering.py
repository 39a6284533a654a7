"""How a trained model becomes a version of a registered one."""

import math
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np

from hemaml.card import model_card
from hemaml.core import settings
from hemaml.core.errors import ConfigError, Forbidden
from hemaml.core.experiment import Plan
from hemaml.core.gates import RECORDED
from hemaml.core.predictions import LIVE
from hemaml.core.tracker import Record, Run, Tracker
from hemaml.course import course_of, told_values
from hemaml.job import Job
from hemaml.metrics import summary
from hemaml.ops.novelty import Reference
from hemaml.record import find_sweep, log_model_pictures, stored_plan, trackers
from hemaml.tasks._classification import Classifier
from hemaml.tracking.mlflow_tracker import CANDIDATE, MlflowTracker
from hemaml.tracking.registry import OF_MODEL, Registry, Version

REPEATED = (
    "experiment", "objective", "data", "data_digest", "classes", "held_out_digest", "split_digest",
    "split.kind", "split.leaky", "protocol.paper", "seed", "trial_key", "sweep", "git.dirty",
    "mlflow.source.git.commit",
)  # fmt: skip
"""Of a run's tags, those that a registered version repeats."""
REGISTERED_AS = "registered"
"""Tag of a run whose model is a registered version: the version's URI."""
UNREGISTERED = "unregistered"
"""Tag of a run whose model was to be registered by somebody who may not."""
CLASSIFIES = "classification"
"""Of the tasks whose models are `Classifier`s; their figures name it."""
REFERENCE = 200
"""Training images that are kept as the model sees them, evenly spaced: each costs a prediction."""
MODEL = "model"
"""Tag of a run that logged a model: the model's URI."""
MODEL_RUN = "model_run"
"""Tag of such a run and of its versions: the run whose weights they are."""


def recorded_tag(name: str) -> str:
    """Tag of a version with a number that training recorded."""
    return f"recorded.{name}"


def registered_name(plan: Plan, data: str) -> str:
    """The registered model that an experiment's models are versions of.

    All architectures of a task compete for one champion as long as data and classes are the
    task's usual ones; others have a name of their own.

    Args:
        plan: The experiment; its `register:` is the name where there is one.
        data: Name of the data set, which says its label set where there are several.
    """
    task = plan.objective.task
    usual = task.name if data == task.usual_data else f"{task.name}-{data}"
    return plan.experiment.register_as or usual


def log_winner(job: Job, run: Run, seed: Record) -> None:
    """Pictures and servable model of the first confirmation seed: not of the best, no picking."""
    source = seed.tags.get("reused_from", seed.id)
    log_model_pictures(job, run, source, "winner")
    log_servable(job, run, source)


def forget_winner(tracker: Tracker, run: Run) -> None:
    """A winner without a finished seed has no model, and must not keep that of an earlier one."""
    if tracker.get(run.id).tags.get(MODEL):
        run.set_tags({MODEL: "", MODEL_RUN: ""})


def log_servable(job: Job, run: Run, source: str) -> None:
    """Logs the weights of the run `source` as a model, and registers it where that is asked for.

    Where the server does not let this user register, the run says so in its tag `unregistered`, and
    `hemaml promote` registers it for who may.

    Raises:
        ModelError: The weights do not predict as they did in training; nothing is registered.
    """
    # It imports a second's worth of MLflow.
    from hemaml.tracking.logged_model import describe_model, log_model

    assert isinstance(job.tracker, MlflowTracker)
    run.flush()  # model and card show the scores
    with TemporaryDirectory() as folder:
        weights = job.tracker.download(source, "weights", Path(folder))
        model = log_model(
            job.tracker,
            run.id,
            objective=job.plan.experiment.objective,
            weights=weights,
            live=job.tracker.download(source, LIVE, Path(folder)),
            data=job.folds[0].val,
            reference=_training_images(job, weights),
        )
    record = job.tracker.get(source)
    scores = {n: v for n, v in summary(record).items() if "/" not in n and math.isfinite(v)}
    describe_model(job.tracker, model, source, scores, job.folds[0].val)
    run.set_tags({MODEL: model, MODEL_RUN: source, "trial_key": record.tags["trial_key"]})
    if job.plan.experiment.register_as is not None:
        name = registered_name(job.plan, job.data.name)
        try:
            register(job.tracker, run.id, name)
        except Forbidden:
            which = f"--sweep {job.sweep}" if job.sweep else f"--run {run.id}"
            told = f"a promoter registers it: hemaml promote {name} {which}"
            run.set_tags({UNREGISTERED: told})


def unregistered(record: Record) -> str:
    """Who registers the model of a run, and how, where it was to be and is not."""
    return "" if REGISTERED_AS in record.tags else record.tags.get(UNREGISTERED, "")


def _training_images(job: Job, weights: Path) -> Reference | None:
    """The training part as a classifier sees it; None for a segmenter, and for too few images."""
    objective, train = job.plan.objective, job.folds[0].train
    if CLASSIFIES not in objective.task.figures:
        return None
    chosen = np.linspace(0, len(train) - 1, min(len(train), REFERENCE)).astype(int)
    part = train.subset(chosen.tolist())
    model = cast(Classifier, objective.model.load(weights))
    _, features = model.predict_and_embed(part.images)
    return Reference.of(features, part.groups)


def register(tracker: MlflowTracker, run_id: str, name: str) -> Version:
    """Makes the model that a run logged a version with its card, and the candidate.

    Raises:
        ConfigError: The run logged no model.
    """
    record = tracker.get(run_id)
    model = record.tags.get(MODEL)
    if not model:
        raise ConfigError(
            f"a version is made of a model, but the run {record.name} ({run_id}) logged none. "
            "Name a finished sweep, or a run of `hemaml run`."
        )
    params = params_of(tracker, record)
    tags: dict[str, object] = {name: record.tags[name] for name in REPEATED if name in record.tags}
    tags |= {f"param.{name}": value for name, value in params.items()}
    tags |= _score_tags(stored_plan(record), record.metrics)
    # The run of a sweep that is resumed may come to tell of another winner.
    tags |= {OF_MODEL: model, MODEL_RUN: record.tags.get(MODEL_RUN, run_id)}
    tags |= {recorded_tag(n): record.metrics[n] for n in RECORDED if n in record.metrics}
    registry = Registry(tracker.uri)
    uri = tracker.register(run_id, model, name, tags)
    version = registry.version(name, int(uri.rpartition("/")[2]))
    registry.describe(version, model_card(uri, record, stored_plan(record).experiment, params))
    tracker.amend(run_id).set_tags({REGISTERED_AS: uri})
    return version


def params_of(tracker: MlflowTracker, record: Record) -> Mapping[str, str]:
    """The parameters of the model that a run logged; a sweep's are those of its winner.

    Those that changed on the way are told with their changes.
    """
    trained = record if record.params else tracker.get(record.tags["model_run"])
    changed = told_values(course_of(tracker, trained, {}))
    return {**trained.params, **{name: str(value) for name, value in changed.items()}}


def _score_tags(plan: Plan, metrics: Mapping[str, float]) -> dict[str, object]:
    """The goals and the primary metric on validation, with their intervals where there are any."""
    names = dict.fromkeys([plan.objective.task.primary, *(goal.metric for goal in plan.goals)])
    tags: dict[str, object] = {}
    for name in names:
        if name in metrics:
            low, high = (metrics.get(f"ci/{name}_{end}") for end in ("low", "high"))
            interval = "" if low is None or high is None else f" ({low:.4f} to {high:.4f})"
            tags[f"val.{name}"] = f"{metrics[name]:.4f}{interval}"
    return tags


def candidate(
    name: str, *, version: int | None = None, sweep: str | None = None, run: str | None = None
) -> Version:
    """The version that is meant; one is made where a sweep or run has none yet.

    Args:
        name: Of the registered model.
        version: Its number; or
        sweep: A finished sweep, whose confirmed winner is meant; or
        run: A run that logged a model. Default: the version with the alias `candidate`.

    Raises:
        UnknownName: No such registered model, version or sweep.
        ConfigError: More than one is given, the run logged no model, or its models have another
            registered name.
    """
    if sum(value is not None for value in (version, sweep, run)) > 1:
        raise ConfigError("a candidate is named once: give one of --version, --sweep and --run.")
    registry = Registry(settings.tracking_uri())
    if version is not None:
        return registry.version(name, version)
    if sweep is None and run is None:
        found = registry.by_alias(name, CANDIDATE)
        if found is None:
            raise ConfigError(
                f"{name!r} has no candidate. Name one by --sweep, --run or --version."
            )
        return found
    record = find_sweep(sweep) if sweep is not None else trackers()[0].get(str(run))
    return registry.of_model(name, record.id, record.tags.get(MODEL)) or _first_version(
        name, record
    )


def _first_version(name: str, record: Record) -> Version:
    plan = stored_plan(record)
    usual = registered_name(plan, record.tags["data"])
    if usual != name:
        raise ConfigError(
            f"a model is registered under the name of its experiment, {usual!r} for "
            f"{record.tags['objective']} on {record.tags['data']}, but got {name!r}. "
            "Promote that one, or set `register:` in the experiment."
        )
    return register(MlflowTracker(settings.tracking_uri(), plan.experiment.task), record.id, name)


def models(name: str | None = None) -> list[Version]:
    """All versions of all registered models, or of one; by name, newest first.

    Raises:
        UnknownName: There is no registered model of that name.
    """
    registry = Registry(settings.tracking_uri())
    names = registry.names() if name is None else [name]
    return [version for each in names for version in reversed(registry.versions(each))]
