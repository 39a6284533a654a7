"""What runs say of themselves in the MLflow UI: descriptions in Markdown."""

from collections.abc import Mapping, Sequence

from hemaml.core.task import Fold, Outer
from hemaml.data.split_table import split_table
from hemaml.data.splits import OUTER_VAL
from hemaml.engines.optuna_engine import Searched
from hemaml.job import Job


def scores_table(
    scores: Mapping[str, tuple[float, float]],
    paper: Mapping[str, str | float],
    heading: str,
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> list[str]:
    """Lines of a Markdown table: metric, mean, deviation, and the paper's figure beside ours."""
    heads = [heading, "mean", "deviation", *(["95 % interval"] if intervals else []), "paper"]
    lines = [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
    for name, (mean, deviation) in scores.items():
        ends = [told(intervals.get(name))] if intervals else []
        cells = [name, f"{mean:.4f}", f"{deviation:.4f}", *ends, str(paper.get(name, ""))]
        lines.append(f"| {' | '.join(cells)} |")
    if source := paper.get("source"):
        lines += ["", f"Paper: {source}. Its splits are others, so it is a neighbour, not a rival."]
    return lines


def told(interval: tuple[float, float] | None) -> str:
    """An interval as tables show it; empty where there is none."""
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def sweep_note(
    job: Job,
    trials: Sequence[Searched],
    winner: Searched | None,
    confirmed: Mapping[str, tuple[float, float]],
) -> str:
    """A sweep's description in Markdown: the question, and the answer once there is one."""
    experiment = job.plan.experiment
    lines = [f"**Question.** {experiment.question}", ""]
    if winner is None:
        state = "No trial finished." if trials else "The sweep is running."
        return "\n".join([*lines, f"**Answer.** {state}", "", *split_lines(job, job.folds)])
    chosen = ", ".join(
        f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}"
        for name, value in winner.point.items()
    )
    goals = [goal.metric for goal in job.plan.goals]
    wanted = list(dict.fromkeys([*goals, *experiment.paper]))
    wanted += [f"{view}/{name}" for view in job.plan.objective.views for name in wanted]
    shown = {name: confirmed[name] for name in wanted if name in confirmed}
    return "\n".join(
        [
            *lines,
            f"**Answer.** Best of {len(trials)} trials: {chosen}. Retrained over "
            f"{experiment.sweep.confirm_seeds} seeds, on the validation part of {job.data.name}; "
            "the held-out part is untouched.",
            "",
            *scores_table(shown, experiment.paper, "validation"),
            "",
            *split_lines(job, job.folds),
        ]
    )


def evaluation_note(
    job: Job,
    scores: Mapping[str, tuple[float, float]],
    intervals: Mapping[str, tuple[float, float]],
) -> str:
    """An evaluation's description in Markdown: the protocol, the scores, the parts."""
    num, split = len(job.outer_splits), job.plan.experiment.split
    if split.folds == "official":
        how = f"{num} official folds, each the test part once; {split.val:.0%} of the others"
        how += " for validation"
    else:
        shares = f"{1 - OUTER_VAL - split.test:.0%} train, {OUTER_VAL:.0%} validation"
        how = f"{num} random splits into {shares} and {split.test:.0%} test"
    protocol = f"**Protocol.** {how}; each test part scored once."
    if intervals:
        units = "groups" if job.data.groups else "images"
        protocol += f" Deviations are over splits, intervals by bootstrap over {units}."
    table = scores_table(scores, job.plan.experiment.paper, "test", intervals)
    return "\n".join([protocol, "", *table, "", *split_lines(job, job.outer_splits)])


def run_note(job: Job) -> str:
    """A single run's description in Markdown: the question, and the parts of its split."""
    question = f"**Question.** {job.plan.experiment.question}"
    return "\n".join([question, "", *split_lines(job, job.folds)])


def split_lines(job: Job, splits: Sequence[Fold | Outer]) -> list[str]:
    """What lies in which part; classes are named where images, not pixels, have them."""
    return split_table(splits, () if len(job.data.masks) else job.data.classes)
