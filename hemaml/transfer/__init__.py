"""A recorded model on other data: whether it would survive another laboratory.

Nothing is trained. All images of the data set are scored, by the scores of the model's task, with
95 % intervals over groups (images where there are none), beside what the model is known to reach on
its own data. Data that the model has seen is refused. The models of all splits of an evaluation can
be scored at once: mean and deviation are then over models.
"""

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hemaml.core.dataset import Dataset
from hemaml.core.errors import ConfigError
from hemaml.core.markdown import markdown_table
from hemaml.core.predictions import Answers
from hemaml.core.provenance import git_state, this_process
from hemaml.core.task import Task
from hemaml.core.tracker import Run
from hemaml.data.reading import read_dataset
from hemaml.evaluate import finite_intervals, test_answers, test_draws
from hemaml.explain import pictures
from hemaml.metrics import mean_and_deviation, mean_metrics
from hemaml.notes import plus_minus, told
from hemaml.ops.resampling import Interval, interval_metrics
from hemaml.record import PARTS, ended_on_error, log_pictures
from hemaml.tracking.registry import Registry
from hemaml.tracking.views import run_page, ui_address
from hemaml.transfer.source import Source, open_source

TABLE = "images.csv"
"""Artifact: each image's scores, means over the models."""
AT_ONCE = 64
"""Images that are scored alone in one go."""
Answered = Mapping[str, Answers]
"""What a model and its views predict, by the prefix of their scores."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Scores on other data.

    Attributes:
        model: Name of the model, with the version that was meant.
        source: Name of the data it was trained on.
        target: Name of the data it was put to.
        num_models: 1, or the splits of an evaluation.
        num_images: Of the target.
        scores: Metric to mean and sample deviation over the models, on the target.
        intervals: Metric to the 95 % interval of its mean.
        source_part: On what part of its own data the model is known, in words.
        source_scores: Metric to mean and deviation there.
        run_id: The run with all of it, pictures, and each image's scores.
        link: Its page in the MLflow UI.
    """

    model: str
    source: str
    target: str
    num_models: int
    num_images: int
    scores: Mapping[str, tuple[float, float]]
    intervals: Mapping[str, Interval]
    source_part: str
    source_scores: Mapping[str, tuple[float, float]]
    run_id: str
    link: str


def transfer(model: str, data: Mapping[str, object]) -> Transfer:
    """Scores a recorded model on all images of another data set.

    Args:
        model: `models:/name@alias`, `models:/name/version`, `runs:/id` or the id alone; see
            `open_source`.
        data: The `data:` section of the other set, as experiments have it.

    Raises:
        UnknownName: No such registered model, version or reader.
        ConfigError: The run has no model, the classes differ, or the model has seen an image.
        DataError: The data cannot be read.
        StoreError: No such run, or the store failed.
    """
    source = open_source(model)
    target = read_dataset(data)
    _check(source, target)
    tracker = source.tracker
    models = source.models()
    run = _open(source, target, len(models))
    with ended_on_error(tracker, run):
        run.log_dataset(target, "target")
        run.log_text(json.dumps(dict(data), indent=1, default=str), "data.json")
        task = source.objective.task
        answered = [test_answers(source.objective, one, target) for one in models]
        rows = [_scores(task, answers, target) for answers in answered]
        drawn = [test_draws(task, answers, target, target) for answers in answered]
        part, known = source.known
        result = Transfer(
            model=source.name,
            source=source.about.tags["data"],
            target=target.name,
            num_models=len(models),
            num_images=len(target),
            scores=mean_and_deviation(rows),
            intervals=finite_intervals(drawn),
            source_part=part,
            source_scores=known,
            run_id=run.id,
            link=f"{ui_address(tracker.uri)}/{run_page(tracker, run.id)}",
        )
        _log(run, source, target, result)
        run.log_text(_images(source, target, answered), TABLE)
        names = task.figures + source.objective.figures
        log_pictures(run, pictures(names, models[0], target), "pictures")
        first = answered[0][""]
        parts = {"by_class": task.by_class(first, target), "by_group": task.by_group(first, target)}
        run.log_text(json.dumps(parts, indent=1), f"pictures/{PARTS}")
        run.set_tags({"outcome": "finished"})
        run.end("FINISHED")
    _tell_model(source, target, result)
    return result


def _check(source: Source, target: Dataset) -> None:
    """Raises `ConfigError` where scores would mean nothing."""
    if target.classes != source.classes:
        raise ConfigError(
            f"a model is scored on its own classes, {', '.join(source.classes)}, in this order, "
            f"but {target.name} has {', '.join(target.classes)}. Name other data, or another model."
        )
    images = frozenset(target.contents())
    if seen := len(images & source.seen):
        raise ConfigError(
            f"a transfer needs images that are new to the model, but {source.name} has learned "
            f"from, or was chosen by, {seen} of the {len(images)} of {target.name}. Name other "
            "data; its own held-out part is scored by `hemaml promote`."
        )


def _open(source: Source, target: Dataset, num_models: int) -> Run:
    tags = source.about.tags
    name = f"{tags['experiment']}-on-{target.name}"
    return source.tracker.start(
        name,
        {
            "kind": "transfer",
            "outcome": "running",
            "model": source.name,
            "models": num_models,
            "experiment": tags["experiment"],
            "objective": source.runs[0].tags["objective"],
            "source.run": source.told.id,
            "source.data": tags["data"],
            "source.data_digest": tags["data_digest"],
            "data": target.name,
            "data_digest": target.digest,
            "classes": json.dumps(target.classes),
            "process": this_process(),
            **git_state(),
        },
    )


def _log(run: Run, source: Source, target: Dataset, result: Transfer) -> None:
    for where, scores in (("target", result.scores), ("source", result.source_scores)):
        shown = {name: pair for name, pair in scores.items() if name in result.scores}
        run.log_metrics(mean_metrics(shown, f"{where}/"))
    ends = interval_metrics(result.intervals)
    run.log_metrics({f"target_{name}": value for name, value in ends.items()})
    run.set_tags({"mlflow.note.content": _note(source, target, result)})


def _note(source: Source, target: Dataset, result: Transfer) -> str:
    primary = source.objective.task.primary
    ordered = dict.fromkeys([primary, *(n for n in result.scores if "/" not in n)])
    rows = [
        (
            name,
            plus_minus(*result.scores[name]),
            told(result.intervals.get(name)),
            plus_minus(*result.source_scores[name]) if name in result.source_scores else "",
        )
        for name in ordered
        if name in result.scores
    ]
    units = "groups" if target.groups else "images"
    lines = [
        f"`{result.model}`, trained on {result.source}, on all {result.num_images} images of "
        f"{result.target}. Deviations are over {result.num_models} models, intervals by bootstrap "
        f"over {units}.",
        "",
    ]
    heads = [f"{result.target}", "mean ± deviation", "95 % interval"]
    return "\n".join(
        [*lines, *markdown_table([*heads, f"{result.source}, {result.source_part}"], rows)]
    )


def _scores(task: Task, answers: Answered, target: Dataset) -> dict[str, float]:
    """Of a model and its views, on all images."""
    return {
        f"{prefix}{name}": value
        for prefix, found in answers.items()
        for name, value in task.score(found, target).items()
    }


def _images(source: Source, target: Dataset, answered: Sequence[Answered]) -> str:
    """Each image with its scores, and with its class where images have one; as CSV."""
    task = source.objective.task
    each = [_by_image(task, answers[""], target) for answers in answered]
    rows = []
    for index, name in enumerate(target.ids):
        row = {"image": name, "group": target.groups[index] if target.groups else ""}
        found = [answers[""].found[index] for answers in answered]
        if found[0].ndim == 1:
            shares = np.mean(found, axis=0)
            row |= {"truth": target.classes[target.labels[index]],
                    "said": target.classes[int(shares.argmax())]}  # fmt: skip
            row |= {f"p({c})": f"{p:.6f}" for c, p in zip(target.classes, shares, strict=True)}
        scores = mean_and_deviation([own[index] for own in each])
        row |= {n: f"{mean:.6f}" for n, (mean, _) in scores.items() if math.isfinite(mean)}
        rows.append(row)
    columns = dict.fromkeys(column for row in rows for column in row)
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _by_image(task: Task, answers: Answers, target: Dataset) -> list[dict[str, float]]:
    """The scores of each image alone.

    Where scores are a function of how often each image is in a set, images are scored once for all.
    """
    if task.resampled is None:
        parts = [target.subset([index]) for index in range(len(target))]
        pairs = zip(answers.found, parts, strict=True)
        return [task.score(Answers([one]), part) for one, part in pairs]
    scores, rows = task.resampled(answers, target), list[dict[str, float]]()
    for first in range(0, len(target), AT_ONCE):
        alone_NR = np.eye(len(target), min(AT_ONCE, len(target) - first), -first)
        found = scores(alone_NR)
        columns = zip(*found.values(), strict=True)
        rows += [dict(zip(found, map(float, values), strict=True)) for values in columns]
    return rows


def _tell_model(source: Source, target: Dataset, result: Transfer) -> None:
    """Puts the score where the model is looked at: its run, its version, the logged model."""
    from hemaml.tracking.logged_model import describe_model

    tracker, primary = source.tracker, source.objective.task.primary
    slug = re.sub(r"[^\w.-]", "_", target.name)
    tag = {f"transfer.{slug}": f"{primary} {result.scores[primary][0]:.4f}, run {result.run_id}"}
    tracker.amend(source.told.id).set_tags(tag)
    if source.version is not None:
        Registry(tracker.uri).set_tags(source.version, tag)
    if source.logged_model:
        scores = {f"target/{n}": mean for n, (mean, _) in result.scores.items() if "/" not in n}
        describe_model(tracker, source.logged_model, result.run_id, scores, target)
