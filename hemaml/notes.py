"""What runs say of themselves in the MLflow UI: descriptions in Markdown."""

import math
from collections.abc import Mapping, Sequence

from hemaml.core.markdown import markdown_table
from hemaml.core.task import Fold, Outer
from hemaml.core.tracker import is_recorded
from hemaml.core.types import Point
from hemaml.data.split_table import split_table
from hemaml.engines.optuna_engine import Searched
from hemaml.job import Job


def scores_table(
    scores: Mapping[str, tuple[float, float]],
    paper: Mapping[str, str | float],
    heading: str,
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> list[str]:
    """Lines of a Markdown table: metric, mean and deviation, and the paper's figure beside ours."""
    rows = [
        (
            name,
            plus_minus(*found),
            *([told(intervals.get(name))] if intervals else []),
            paper.get(name, ""),
        )
        for name, found in scores.items()
    ]
    interval = ["95 % interval"] if intervals else []
    lines = markdown_table([heading, "mean ± deviation", *interval, "paper"], rows)
    if source := paper.get("source"):
        lines += ["", f"Paper: {source}. Its splits are others, so it is a neighbour, not a rival."]
    return lines


def told(interval: tuple[float, float] | None) -> str:
    """An interval as tables show it; empty where there is none."""
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def plus_minus(mean: float, deviation: float) -> str:
    """As in `0.9523 ± 0.0018`; the mean alone where there is no deviation."""
    return f"{mean:.4f}" + ("" if math.isnan(deviation) else f" ± {deviation:.4f}")


def counted(num: int, what: str) -> str:
    """As in `1 split` and `5 splits`."""
    return f"{num} {what}" if num == 1 else f"{num} {what}s"


def point_text(point: Mapping[str, object]) -> str:
    """As in `lr = 0.02, conv = gin`."""
    texts = {n: f"{v:.4g}" if isinstance(v, float) else str(v) for n, v in point.items()}
    return ", ".join(f"{name} = {text}" for name, text in texts.items())


def sweep_note(
    job: Job,
    trials: Sequence[Searched],
    winner: Point,
    confirmed: Mapping[str, tuple[float, float]],
    pages: Mapping[str, str],
) -> str:
    """A sweep's description in Markdown: the question, the answer once there is one, and pages.

    `winner` is its point, empty where there is none.
    """
    experiment = job.plan.experiment
    lines = [f"**Question.** {experiment.question}", ""]
    look = ["**Look at** " + ", ".join(f"[{name}]({page})" for name, page in pages.items()), ""]
    if not winner:
        state = "No trial finished." if trials else "The sweep is running."
        lines += [f"**Answer.** {state}", "", *look]
        return "\n".join([*lines, *split_lines(job, job.folds)])
    goals = [goal.metric for goal in job.plan.goals]
    wanted = list(dict.fromkeys([*goals, *experiment.paper]))
    wanted += [f"{view}/{name}" for view in job.plan.objective.views for name in wanted]
    shown = {name: confirmed[name] for name in wanted if name in confirmed}
    seeds = experiment.sweep.confirm_seeds
    retrained = f"Retrained over {seeds} seeds. " if seeds else ""
    return "\n".join(
        [
            *lines,
            f"**Answer.** Best of {len(trials)} trials: {point_text(winner)}. {retrained}On "
            f"the validation part of {job.data.name}; the held-out part is untouched.",
            "",
            *look,
            *scores_table(shown, experiment.paper, "validation"),
            "",
            *split_lines(job, job.folds),
        ]
    )


def evaluation_note(
    job: Job,
    scores: Mapping[str, tuple[float, float]],
    intervals: Mapping[str, tuple[float, float]],
    pooled: Mapping[str, float],
) -> str:
    """An evaluation's description in Markdown: question, answer, protocol, scores, parts."""
    experiment = job.plan.experiment
    num, split = len(job.outer_splits), job.plan.experiment.split
    if split.folds in ("official", "each_group"):
        kind = "official folds" if split.folds == "official" else "groups"
        how = f"{num} {kind}, each the test part once; {split.val:.0%} of the others"
        how += " for validation"
    elif split.outer_folds is not None:
        how = f"{num} folds, each the test part once; {split.outer_val:.0%} of all items, from the"
        how += " others, for validation"
    else:
        shares = f"{1 - split.outer_val - split.test:.0%} train, {split.outer_val:.0%} validation"
        how = f"{counted(num, 'random split')} into {shares} and {split.test:.0%} test"
        if job.data.groups and split.group == "auto":
            how += ", drawn among good assignments of groups: they vary on purpose and are not the"
            how += " best one"
    goal = job.plan.goals[0].metric
    beside = f"; the paper has {experiment.paper[goal]}" if goal in experiment.paper else ""
    ordered = dict.fromkeys([goal, *experiment.paper, *sorted(scores, key=lambda n: ("/" in n, n))])
    shown = {name: scores[name] for name in ordered if name in scores}
    lines = [f"**Question.** {experiment.question}", ""]
    if goal in scores:
        answer = f"{goal} {plus_minus(*scores[goal])} on {counted(num, 'test part')}"
        lines += [f"**Answer.** {answer}{beside}.", ""]
    protocol = f"**Protocol.** {how}; each test part scored once."
    if goal in pooled:
        protocol += f" Of all test predictions together, {goal} is {pooled[goal]:.4f}."
    if intervals:
        units = "groups" if job.data.groups else "images"
        protocol += f" Deviations are over splits, intervals by bootstrap over {units}."
    table = scores_table(shown, experiment.paper, "test", intervals)
    return "\n".join([*lines, protocol, "", *table, "", *split_lines(job, job.outer_splits)])


def run_note(job: Job) -> str:
    """A single run's description in Markdown: the question, and the parts of its split."""
    question = f"**Question.** {job.plan.experiment.question}"
    return "\n".join([question, "", *split_lines(job, job.folds)])


def split_lines(job: Job, splits: Sequence[Fold | Outer]) -> list[str]:
    """What lies in which part, and which recorded models are built on.

    Classes are named where images, not pixels, have them.
    """
    table = split_table(splits, () if len(job.data.masks) else job.data.classes)
    return [*table, *_lineage_lines(job)]


def _lineage_lines(job: Job) -> list[str]:
    """The recorded models that the parameters name, fixed or searched."""
    plan = job.plan
    corner = next(plan.space.corners()) if plan.space else {}
    values: list[object] = [*plan.params(corner).model_dump(mode="json").values()]
    for dimension in plan.space.root.values() if plan.space else ():
        values += dimension.extremes
    told = [
        f"{uri}, which has learned from {len(job.tracker.trained_on(str(uri)))} images"
        for uri in dict.fromkeys(value for value in values if is_recorded(value))
    ]
    if not told:
        return []
    return ["", f"**Builds on** {'; '.join(told)}. None of these may be scored here."]
