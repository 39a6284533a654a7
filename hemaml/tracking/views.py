"""Ready-made views of the MLflow UI: filter, order and columns behind one link.

The UI keeps the views that people share as tags of the experiment and opens them by key; a view
written here opens the same way, so that a sweep's trials show their scores and swept parameters
without a click.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Sequence

from hemaml.core.experiment import Plan
from hemaml.tracking.mlflow_tracker import MlflowTracker, without_secret

COLUMNS = ("params_total", "ms_per_image", "train_s")
"""Metrics that a view shows beside the goals and the paper's."""
TAG = "mlflow.sharedViewState."
LEADING = ("attributes.`Created`", "attributes.`Duration`", "tags.`outcome`")


def trials_view(tracker: MlflowTracker, plan: Plan, sweep_id: str) -> str:
    """A view of a sweep's trials by their first goal, with what was searched; its address."""
    goal = plan.goals[0]
    named = [goal.metric for goal in plan.goals] + list(plan.experiment.paper)
    beside = [f"{view}/{goal.metric}" for view in plan.objective.views]
    metrics = [name for name in dict.fromkeys([*named, *beside, *COLUMNS]) if name != "source"]
    return share_view(
        tracker,
        filter=f"tags.sweep = '{sweep_id}' and tags.kind = 'trial'",
        order_by=goal.metric,
        descending=goal.direction == "maximize",
        metrics=metrics,
        params=list(plan.space or ()),
    )


def run_page(tracker: MlflowTracker, run_id: str) -> str:
    """The page of a run; its address below the server's."""
    return f"#/experiments/{tracker.experiment_id}/runs/{run_id}?workflowType=machine_learning"


def ui_address(uri: str, host: str = "127.0.0.1", port: int = 5000) -> str:
    """Where the MLflow UI of a store is: the server itself, else what `hemaml ui` starts."""
    return without_secret(uri).rstrip("/") if uri.startswith("http") else f"http://{host}:{port}"


def share_view(
    tracker: MlflowTracker,
    *,
    filter: str,  # noqa: A002 - the UI's word for it
    order_by: str,
    descending: bool,
    metrics: Sequence[str],
    params: Sequence[str],
) -> str:
    """Stores a view of the task's runs; returns its address below the server's.

    Args:
        tracker: The store and the task.
        filter: In MLflow's search language.
        order_by: A metric.
        descending: Whether the largest value comes first.
        metrics: Columns, in order.
        params: Columns, in order.
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
    }
    text = json.dumps(state, sort_keys=True).encode()
    key = hashlib.blake2b(text, digest_size=16).hexdigest()
    packed = "deflate;" + base64.b64encode(zlib.compress(text)).decode()
    tracker.set_experiment_tag(TAG + key, packed)
    place = f"#/experiments/{tracker.experiment_id}/runs"
    return f"{place}?viewStateShareKey={key}&workflowType=machine_learning"
