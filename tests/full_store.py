"""A store with many runs, made quickly, and all that two records must have alike."""

import time
from collections import Counter

import optuna
import sqlalchemy as sa
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from hemaml.engines.optuna_study import open_storage
from hemaml.tracking.mlflow_tracker import MlflowTracker

EPOCHS = 20
LOCATIONS = {"artifact_uri", "artifact_location", "source", "storage_location"}
OF_A_SERVER = {"alembic_version", "workspaces"}


def fill(uri, storage, num_runs, *, with_file=1):
    """Runs with curves and tags, files, a registered model of versions, a trace and a study.

    Args:
        uri: Of the embedded store.
        storage: Of the studies.
        num_runs: How many.
        with_file: Every so many runs have a file.
    """
    tracker, client = MlflowTracker(uri, "stub"), MlflowClient(uri)
    now = int(time.time() * 1000)
    for number in range(num_runs):
        run = tracker.start(f"run-{number}", {"kind": "bulk", "number": number})
        curves = [
            Metric("val/score", number / (step + 1), now + step, step) for step in range(EPOCHS)
        ]
        last = [Metric("score", float("nan") if number == 7 else number / 3, now, 0)]
        params = [Param("x", repr(number / 7)), Param("mode", "fine")]
        told = [RunTag("note", "gr\u00fcn \u2603"), RunTag("view", links(tracker.experiment_id))]
        client.log_batch(run.id, curves + last, params, told)
        if number % with_file == 0:
            run.log_text(f"text of {number}", "folder with space/note.txt")
        client.set_terminated(run.id, ("FINISHED", "FAILED", "KILLED")[number % 3])
    client.delete_run(run.id)
    client.create_registered_model("bulk", {"a": "b"}, "about it")
    for number in (1, 2):
        location = f"{client.get_run(run.id).info.artifact_uri}/folder with space"
        client.create_model_version("bulk", location, run.id, {"number": str(number)})
    client.set_registered_model_alias("bulk", "champion", "2")
    client.set_registered_model_alias("bulk", "previous", "1")
    trace(uri, tracker.experiment_id)
    study = optuna.create_study(storage=open_storage(storage), study_name="bulk/ab")
    for number in range(20):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.report(number / 2, 1)
        trial.set_user_attr("run_id", run.id)
        if number < 19:  # the last one runs
            study.tell(trial, number if number % 2 else None, state=None if number % 2 else FAIL)


def links(experiment):
    """Addresses of the MLflow UI, as hemaml writes them into tags."""
    compared = f"#/compare-runs?runs=%5B%22a%22%5D&experiments=%5B%22{experiment}%22%5D"
    return f"#/experiments/{experiment}/runs?x=1 {compared}"


FAIL = optuna.trial.TrialState.FAIL


def trace(uri, experiment):
    """A trace, as MLflow stores it."""
    engine = sa.create_engine(uri)
    tables = sa.MetaData()
    tables.reflect(engine)
    told = {
        "request_id": "tr-1",
        "experiment_id": int(experiment),
        "timestamp_ms": 1,
        "status": "OK",
    }
    with engine.begin() as connection:
        place = connection.scalar(
            sa.text("select artifact_location from experiments where experiment_id = :id"),
            {"id": int(experiment)},
        )
        tag = {"request_id": "tr-1", "key": "mlflow.artifactLocation"}
        tag["value"] = f"{place}/traces/tr-1/artifacts"
        connection.execute(sa.insert(tables.tables["trace_info"]), told)
        connection.execute(sa.insert(tables.tables["trace_tags"]), tag)
    engine.dispose()


def contents(url, *, renumbered=()):
    """All rows of a record as countable tuples, a table; but where files are.

    Args:
        url: Of the database.
        renumbered: Old and new ids of experiments.
    """
    ids, tables = dict(renumbered), sa.MetaData()
    engine = sa.create_engine(url)
    found = {}
    with engine.connect() as connection:
        tables.reflect(connection)
        for name, table in tables.tables.items():
            columns = sorted(c.name for c in table.columns if c.name not in LOCATIONS)
            rows = connection.execute(sa.select(*(table.c[c] for c in columns))).mappings()
            told = [
                tuple(
                    repr(ids.get(v, v) if c == "experiment_id" else v)
                    for c, v in row.items()
                    if "#/experiments/" not in str(v) and "artifacts" not in str(v)
                )
                for row in rows
            ]
            if told and name not in OF_A_SERVER:
                found[name] = Counter(told)
    engine.dispose()
    return found


def trials(storage):
    """All that is known of all trials, a study."""
    opened = open_storage(storage)
    return {
        study.study_name: (
            study.directions, study.user_attrs, study.system_attrs,
            [
                (t.number, t.state, t.values, t.params, t.distributions, t.user_attrs,
                 t.system_attrs, t.intermediate_values, t.datetime_start, t.datetime_complete)
                for t in opened.get_all_trials(study._study_id)
            ],
        )
        for study in opened.get_all_studies()
    }  # fmt: skip
