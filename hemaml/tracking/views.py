"""Pages of the MLflow UI, and ready-made views of it: filter, order, columns and charts in a link.

The UI keeps the views that people save as tags of the experiment, lists them in its menu "Views"
and opens them by key; a view written here opens the same way, so that a sweep's trials show their
scores and swept parameters without a click. Addresses are below the server's.
"""

import base64
import hashlib
import json
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from hemaml.core.experiment import Plan
from hemaml.tracking.mlflow_run import without_secret
from hemaml.tracking.mlflow_tracker import MlflowTracker

COLUMNS = ("params_total", "ms_per_image")
"""Metrics that a view shows beside the goals; more would push the parameters out of sight."""
TAG = "mlflow.sharedViewState."
LEADING = ("attributes.`Created`", "attributes.`Duration`", "tags.`outcome`")
MODE = "workflowType=machine_learning"
"""Without it the UI shows its side for chats."""
SECTION = "sweep"
"""Id of the section with our charts, above those that the UI makes of every metric."""


def trials_view(tracker: MlflowTracker, plan: Plan, sweep_id: str) -> str:
    """A view of a sweep's trials by their first goal, with what was searched; its address."""
    goal, goals = plan.goals[0], [goal.metric for goal in plan.goals]
    beside = [f"{view}/{goal.metric}" for view in plan.objective.views]
    params = list(plan.space or ())
    return share_view(
        tracker,
        name=sweep_id,
        filter=f"tags.sweep = '{sweep_id}' and tags.kind = 'trial'",
        order_by=goal.metric,
        descending=goal.direction == "maximize",
        metrics=list(dict.fromkeys([*goals, *beside, *COLUMNS])),
        params=params,
        charts=_charts(goals, params),
    )


def as_charts(view: str) -> str:
    """The address of a view that opens on its charts instead of its table."""
    return f"{view}&compareRunsMode=CHART"


def task_page(tracker: MlflowTracker) -> str:
    """The page of a task: its description and its runs."""
    return f"#/experiments/{tracker.experiment_id}/runs?{MODE}"


def run_page(tracker: MlflowTracker, run_id: str) -> str:
    """The page of a run."""
    return f"#/experiments/{tracker.experiment_id}/runs/{run_id}?{MODE}"


def compare_page(tracker: MlflowTracker, run_ids: Sequence[str]) -> str:
    """The page that puts some runs of a task side by side."""
    runs, experiments = (
        quote(json.dumps(list(ids), separators=(",", ":")), safe="")
        for ids in (run_ids, [tracker.experiment_id])
    )
    return f"#/compare-runs?runs={runs}&experiments={experiments}&{MODE}"


def model_page(name: str, version: int | None = None) -> str:
    """The page of a registered model, or of one of its versions."""
    below = "" if version is None else f"/versions/{version}"
    return f"#/models/{quote(name, safe='')}{below}?{MODE}"


def ui_address(uri: str, host: str = "127.0.0.1", port: int = 5000) -> str:
    """Where the MLflow UI of a store is: the server itself, else what `hemaml ui` starts."""
    return without_secret(uri).rstrip("/") if uri.startswith("http") else f"http://{host}:{port}"


def share_view(
    tracker: MlflowTracker,
    *,
    name: str,
    filter: str,  # noqa: A002 - the UI's word for it
    order_by: str,
    descending: bool,
    metrics: Sequence[str],
    params: Sequence[str],
    charts: Sequence[Mapping[str, Any]],
) -> str:
    """Stores a view of the task's runs; returns its address.

    Args:
        tracker: The store and the task.
        name: In the menu of views.
        filter: In MLflow's search language.
        order_by: A metric.
        descending: Whether the largest value comes first.
        metrics: Columns; the UI sorts them by name.
        params: Columns.
        charts: As the UI keeps them; those of single metrics follow below.
    """
    columns = [*LEADING, *(f"metrics.`{m}`" for m in metrics), *(f"params.`{p}`" for p in params)]
    state = {
        "searchFilter": filter,
        "orderByKey": f"metrics.`{order_by}`",
        "orderByAsc": not descending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "compareRunCharts": list(charts),
        "compareRunSections": [_section(name)],
        "isAccordionReordered": True,  # else the UI moves our section down
    }
    text = json.dumps(state, sort_keys=True).encode()
    key = hashlib.blake2b(text, digest_size=16).hexdigest()
    packed = "deflate;" + base64.b64encode(zlib.compress(text)).decode()
    now = int(time.time() * 1000)
    view = {"name": name, "createdAt": now, "updatedAt": now, "state": packed}
    tracker.set_experiment_tag(TAG + key, json.dumps(view))
    return f"#/experiments/{tracker.experiment_id}/runs?viewStateShareKey={key}&{MODE}"


def _section(name: str) -> dict[str, Any]:
    return {"uuid": SECTION, "name": name, "display": True, "isReordered": True,
            "deleted": False, "isGenerated": False}  # fmt: skip


def _charts(goals: Sequence[str], params: Sequence[str]) -> list[dict[str, Any]]:
    """What a sweep is looked at for: parameters against goals, size against score, the curves."""
    goal, size = goals[0], goals[1] if len(goals) > 1 else "params_total"
    wanted: list[dict[str, Any]] = [
        {"type": "PARALLEL", "selectedParams": list(params), "selectedMetrics": list(goals),
         "showAllRuns": True, "displayName": f"{goal} by parameters"},
        {"type": "SCATTER", "xaxis": {"key": size, "type": "METRIC"},
         "yaxis": {"key": goal, "type": "METRIC"}, "runsCountToCompare": 100,
         "displayName": f"{goal} against {size}"},
        {"type": "LINE", "metricKey": f"val/{goal}", "selectedMetricKeys": [f"val/{goal}"],
         "lineSmoothness": 0, "xAxisKey": "step", "scaleType": "linear", "xAxisScaleType": "linear",
         "range": {}, "yAxisKey": "metric", "yAxisExpressions": [], "useGlobalXaxisKey": True,
         "useGlobalLineSmoothing": True, "displayName": f"{goal} while training"},
    ]  # fmt: skip
    common = {"metricSectionId": SECTION, "deleted": False, "isGenerated": False}
    return [
        {"runsCountToCompare": 10, **common, **chart, "uuid": f"{SECTION}-{number}"}
        for number, chart in enumerate(wanted)
    ]
