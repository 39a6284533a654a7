"""Model cards: a registered version's description in Markdown, rendered from its record."""

import json
import math
from collections.abc import Mapping

from hemaml.core.experiment import Experiment
from hemaml.core.markdown import markdown_table
from hemaml.core.tracker import Record
from hemaml.data.splits import KIND_IN_WORDS
from hemaml.lockstep import is_curve
from hemaml.training import ORIGIN

SHOWN = ("params_total", "params_trainable", "model_bytes", "ms_per_image", "train_s")
ENDS = ("_low", "_high")


def model_card(
    uri: str,
    record: Record,
    experiment: Experiment,
    params: Mapping[str, object],
    held_out: Mapping[str, float] | None = None,
) -> str:
    """The card of a version.

    Args:
        uri: `models:/name/version`.
        record: The run that logged the model: of a sweep, or a single one.
        experiment: What the run asked.
        params: The model's parameters.
        held_out: Scores on the held-out part with the ends of their intervals (`ci/dice_low`),
            once it has been looked at.
    """
    tags = record.tags
    lines = [
        _headline(record, held_out or {}),
        "",
        f"**Intended use.** {experiment.intended_use}",
        "",
        f"**Licence.** {experiment.licence}",
        "",
        f"**Question.** {experiment.question}",
        "",
        f"**Data.** {tags['data']} (digest `{tags['data_digest']}`), classes "
        f"{', '.join(json.loads(tags['classes']))}. {KIND_IN_WORDS[tags['split.kind']]}",  # type: ignore[index]
        "",
    ]
    if ORIGIN in tags:
        lines += [f"**Began from.** {tags[ORIGIN]}.", ""]
    if held_out:
        lines += ["## Held-out part", "", *_scores(held_out), ""]
    lines += ["## Validation", "", *_scores(record.metrics), ""]
    numbers = {n: f"{record.metrics[n]:,.6g}" for n in SHOWN if n in record.metrics}
    lines += ["## Size and speed", "", *markdown_table(["", ""], numbers.items())]
    lines += ["", "## Parameters", "", *markdown_table(["", ""], params.items())]
    lines += ["", "## Use", "", "```python", "import mlflow", ""]
    lines += [f'model = mlflow.pyfunc.load_model("{uri}")']
    lines += ['model.predict(["cell.png"])  # or arrays of H x W x 3, or base64', "```", ""]
    commit = tags.get("mlflow.source.git.commit")
    dirty = ", with uncommitted changes" if tags.get("git.dirty") == "true" else ""
    lines += [f"Code: {commit or 'no repository'}{dirty}. Seed {tags['seed']}. Run `{record.id}`."]
    return "\n".join(lines)


def score_names(metrics: Mapping[str, float]) -> list[str]:
    """Of a run's metrics those that say how good its model is, sorted."""
    return [
        name
        for name in sorted(metrics)
        if "/" not in name and name not in SHOWN and not is_curve(name)
        and not name.endswith("_std") and name not in ("best_step", "epoch_s", "peak_memory_mb")
    ]  # fmt: skip


def _headline(record: Record, held_out: Mapping[str, float]) -> str:
    """One line without markup, since tables of versions show the raw beginning of a card."""
    goals = json.loads(record.tags.get("goals", "[]"))
    goal = goals[0]["metric"] if goals else ""
    told = [f"{goal} {held_out[goal]:.4f} held out"] if goal in held_out else []
    if goal in record.metrics:
        told.append(f"{record.metrics[goal]:.4f} on validation")
    told.append(f"{record.metrics['params_total']:,.0f} parameters")
    return f"{record.tags['objective'].partition('.')[2]}: {', '.join(told)}"


def _scores(metrics: Mapping[str, float]) -> list[str]:
    """A table of the scores that have no slash: value, deviation over seeds, 95 % interval."""
    rows = []
    for name in score_names(metrics):
        spread = metrics.get(f"{name}_std", math.nan)
        low, high = (metrics.get(f"ci/{name}{end}", math.nan) for end in ENDS)
        interval = f"{low:.4f} to {high:.4f}" if math.isfinite(low + high) else ""
        deviation = f"{spread:.4f}" if math.isfinite(spread) else ""
        rows.append((name, f"{metrics[name]:.4f}", deviation, interval))
    return markdown_table(["metric", "value", "deviation", "95 % interval"], rows)
