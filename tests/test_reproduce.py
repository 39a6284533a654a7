"""Papers' tables measured again: ours beside theirs, what differs, reuse, and what is missing."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

import hemaml
from hemaml.cli import app
from hemaml.core import settings
from hemaml.core.errors import ConfigError, StoreError, UnknownName
from hemaml.data.splits import split_record
from hemaml.objectives.wbc_segmentation._convolutional import ConvolutionalModel
from hemaml.reproduce.less import differences
from hemaml.reproduce.table import find_table, row_plans
from hemaml.tracking.mlflow_tracker import MlflowTracker

TABLE = {
    "about": "Two models that cost nothing.",
    "source": "Nobody 2026, Table 0, section 1",
    "data": {"name": "stub", "images": 24, "sides": [8, 8]},
    "metrics": ["params_total", "score"],
    "rows": {
        "good": {"label": "Good", "experiment": "good", "settings": {"epochs": 4},
                 "paper": {"params_total": 50, "score": 0.5}},
        "bad": {"label": "Bad", "experiment": "bad", "paper": {"score": 0.4}},
    },
}  # fmt: skip


@pytest.fixture
def table(stub, tmp_path):
    """Writes a table with its two experiments, of which one can be told to fail; its path."""
    folder = tmp_path / "mine" / "experiments" / "stub"

    def write(mode="fine", **changes):
        (folder / "tables").mkdir(parents=True, exist_ok=True)
        for name, own in (("good", {}), ("bad", {"mode": mode, "x": 0.4})):
            document = deepcopy(stub.EXPERIMENT) | {"name": name}
            document["params"] |= own
            (folder / f"{name}.yaml").write_text(json.dumps(document))  # JSON is YAML
        path = folder / "tables" / "stub-table.yaml"
        path.write_text(json.dumps(TABLE | changes))
        return str(path)

    return write


def call(*arguments):
    result = CliRunner().invoke(app, ["reproduce", *arguments], catch_exceptions=False)
    return result.exit_code, result.stdout


def tracker(task="stub"):
    return MlflowTracker(settings.tracking_uri(), task)


def test_ours_stand_beside_the_papers_figures(table):
    found = hemaml.reproduce(table(), splits=3)
    assert found.complete and [row.key for row in found.rows] == ["good", "bad"]
    good = found.rows[0]
    mean, deviation = good.scores["score"]
    assert good.differences == () and (good.splits, good.seeds) == (3, 1)
    assert good.difference("score") == pytest.approx(mean - 0.5)
    record = tracker().get(found.run_id)
    assert (record.tags["kind"], record.tags["outcome"]) == ("table", "finished")
    logged = {name: record.metrics[f"good/{name}"] for name in ("score", "score_paper")}
    assert logged == {"score": mean, "score_paper": 0.5}
    rows = list(csv.DictReader(io.StringIO(tracker().read_text(record.id, "table.csv"))))
    (line,) = [row for row in rows if (row["row"], row["metric"]) == ("good", "score")]
    assert (float(line["mean"]), float(line["deviation"])) == (mean, deviation)
    page = tracker().read_text(record.id, "table.html")
    assert page == found.page.read_text() and f"{mean:.4f}" in page and "paper 0.5000" in page
    assert "<script" not in page
    below = tracker().find({"kind": "evaluation"}, parent=record.id)
    assert [run.tags["experiment"] for run in below] == ["good", "bad"]
    assert below[1].tags["paper.score"] == "0.4", "the table's figure, not the experiment's"


def test_what_was_measured_on_less_is_found_in_what_was_run(table):
    data = {"name": "cells", "images": 300, "sides": [16, 16]}
    path = table(data=data, train=0.9, settings={"width": 8})
    code, shown = call(path, "--splits", "2", "--set", "params.epochs=2", "--rows", "good")
    assert code == 0
    for told in (
        "epochs 2 instead of 4", "width 4 instead of 8", "24 images instead of 300",
        "data stub (stub) instead of cells", "images of 8 x 8 pixels instead of 16 x 16",
        "of the images instead of 90%",
    ):  # fmt: skip
        assert told in shown.replace("\n", " "), told
    assert "params.epochs" in (settings.store_root() / "reports" / "stub-table.html").read_text()
    code, shown = call(table(), "--splits", "2", "--rows", "good")
    assert code == 0 and "instead of" not in shown


def test_what_was_measured_on_more_or_split_otherwise_is_found_as_well(table):
    path = table(train=0.5)
    code, shown = call(path, "--splits", "2", "--rows", "good", "--set", "split.group=none")
    assert code == 0 and "trained on 83% of the images instead of 50%" in shown
    assert "split.group none instead of auto" in shown
    (row,) = row_plans(find_table(path), ["good"], ["split.folds=3"])
    assert row.changed == {"split.folds": (3, 1)}


@pytest.mark.parametrize(
    ("table", "keys", "sets", "told"),
    [
        ("wbc-table-1", ["smgnn"], [], []),
        ("wbc-table-4", ["smgnn", "none"], [], []),
        ("wbc-table-6", ["none", "smgnn"], [], []),
        ("wbc-table-4", ["none"], ["split.test=0.1"], ["trained on 89% of the images"]),
        ("wbc-table-4", ["none"], ["split.outer_folds=5"], ["trained on 79% of the images"]),
    ],
)
def test_the_papers_share_is_no_difference_and_a_larger_one_is(
    workplace, real_data, monkeypatch, table, keys, sets, told
):
    monkeypatch.setenv("HEMAML_DATA", str(real_data))
    found = find_table(table)
    for row in row_plans(found, keys, sets):
        task, experiment = row.plan.objective.task, row.plan.experiment
        outer = task.outer(task.read(experiment.data), experiment.split, None, 0)
        shown = differences(found.table, row, split_record(tuple(outer)))
        assert shown == [f"{text} instead of 39%" for text in told], row.key


def test_what_lies_in_a_parameter_differs_by_its_own_name():
    found = find_table("wbc-table-6")
    (row,) = row_plans(found, ["unet"], [])
    name = "segmenters.wbc_segmentation.unet"
    assert row.changed == {f"{name}.width": (0.125, 1)}
    sets = ["unet:params.segmenters={wbc_segmentation.unet: {epochs: 60}}"]
    (other,) = row_plans(found, ["unet"], sets)
    expected = {"lr": (0.001, 0.01), "epochs": (60, 20), "validate_every": (4, 20)}
    assert other.changed == {f"{name}.{own}": pair for own, pair in expected.items()}


def test_what_is_not_in_force_is_no_difference():
    sets = ["params.segmenters={wbc_segmentation.unet: {epochs: 60}}"]
    (none,) = row_plans(find_table("wbc-table-6"), ["none"], sets)
    assert none.changed == {}
    other = "wbc_segmentation.smgnn", "wbc_segmentation.unet"
    (row,) = row_plans(find_table("wbc-table-6"), ["unet"], [f"params.segmentation={other[0]}"])
    assert row.changed == {"segmentation": other}, "the segmenters' own parameters hang on it"


def test_another_model_under_the_label_of_a_row_is_told():
    names = "wbc_segmentation.gnn_only", "wbc_segmentation.smgnn"
    for table in ("wbc-table-1", "wbc-table-3"):
        (row,) = row_plans(find_table(table), ["smgnn"], [f"smgnn:objective={names[0]}"])
        assert row.changed["objective"] == names


def test_training_that_ends_early_is_told_beside_the_papers_epochs():
    rows = row_plans(find_table("leukemia-table-1"), ["resnet18_gcn", "inductive"], [])
    assert [row.changed["patience"] for row in rows] == [(5, 0)] * 2


def test_a_second_time_nothing_is_trained_and_no_run_is_made(table, stub):
    first = hemaml.reproduce(table(), splits=2, seeds=2)
    trained, runs = len(stub.trained), len(tracker().find({}))
    assert trained == 8 and first.rows[0].seeds == 2
    again = hemaml.reproduce(table(), splits=2, seeds=2)
    assert (len(stub.trained), len(tracker().find({}))) == (trained, runs)
    assert (again.run_id, again.rows) == (first.run_id, first.rows)
    hemaml.reproduce(table(), splits=2, overrides=["bad:params.x=0.1"])
    assert stub.trained[trained:] == [0.1, 0.1], "only what is new"


def test_an_interrupted_table_goes_on_where_it_was(table, stub):
    path = table()

    def interrupt(epoch):
        if len(stub.trained) == 4 and epoch == 2:
            raise KeyboardInterrupt

    stub.on_step.append(interrupt)
    code, _ = call(path, "--splits", "3")
    assert code == 130
    (above,) = tracker().find({"kind": "table"})
    assert (above.status, above.tags["outcome"]) == ("KILLED", "interrupted")
    stub.on_step.clear()
    steps = []
    stub.on_step.append(steps.append)
    code, _ = call(path, "--splits", "3")
    assert code == 0 and len(stub.trained) == 7, "one of the six splits was begun twice"
    assert steps == [2, 3, 0, 1, 2, 3, 0, 1, 2, 3], "and went on in its epoch"
    assert [run.id for run in tracker().find({"kind": "table"})] == [above.id]
    assert len(tracker().find({"kind": "evaluation"})) == 2
    assert {run.status for run in tracker().find({})} == {"FINISHED"}


def test_a_split_killed_between_its_outcome_and_its_end_is_ended(table, stub):
    path = table()

    def interrupt(epoch):
        if len(stub.trained) == 2 and epoch == 2:
            raise KeyboardInterrupt

    stub.on_step.append(interrupt)
    call(path, "--splits", "3", "--rows", "good")
    stub.on_step.clear()
    (done,) = tracker().find({"kind": "split", "outcome": "finished"})
    tracker().reopen(done.id)  # as the kill would leave it
    code, _ = call(path, "--splits", "3", "--rows", "good")
    assert code == 0 and len(stub.trained) == 3 + 1
    assert {run.status for run in tracker().find({})} == {"FINISHED"}


def test_a_row_that_fails_says_why_and_the_others_are_measured(table):
    path = table(mode="boom", rows=dict(reversed(TABLE["rows"].items())))
    code, shown = call(path, "--splits", "2")
    assert code == 1
    assert "Bad was not measured: every split must train" in shown and "something broke" in shown
    assert "split 0, 1: failed" in shown.replace("\n", " "), "one reason of both is told once"
    assert "good: measured" in shown
    (above,) = tracker().find({"kind": "table"})
    assert (above.status, above.tags["outcome"]) == ("FAILED", "incomplete")
    assert "good/score" in above.metrics and "bad/score" not in above.metrics
    page = (settings.store_root() / "reports" / "stub-table.html").read_text()
    assert "1 of 2 rows" in page and "something broke" in page


def test_a_page_is_replaced_as_a_whole(table, monkeypatch):
    path = table()
    page = hemaml.reproduce(path, splits=2, rows=["good"]).page
    before, usual = page.read_text(), Path.write_text

    def full(self, text, **how):
        usual(self, text[: len(text) // 2], **how)
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StoreError, match="a table needs a file that can be written.*no space left"):
        hemaml.reproduce(path, splits=2, rows=["good"])
    assert page.read_text() == before and list(page.parent.iterdir()) == [page]


def test_absent_data_is_told_with_what_to_do(workplace):
    code, shown = call("leukemia-table-1", "--rows", "svm,resnet18")
    assert code == 1 and shown.count("was not measured: HEMAML_DATA must name the folder") == 2
    (above,) = tracker("leukemia").find({"kind": "table"})
    assert above.tags["outcome"] == "incomplete"


def test_what_is_asked_wrong_leaves_nothing(table, workplace):
    for changes, arguments, told in (
        ({}, ["--rows", "godo"], "unknown row of stub-table 'godo'; known: good"),
        ({}, ["--set", "params.epoch=3"], "unknown parameter of any row 'params.epoch'"),
        ({}, ["--set", "params.epochs=-1"], "epochs"),
        ({}, ["--seeds", "0"], "`seeds >= 1` must hold"),
        ({}, ["--splits", "0"], "`splits >= 1` must hold"),
        ({}, ["--workers", "0"], "`workers >= 1` must hold"),
        ({"settings": {"epoch": 4}}, [], "unknown parameter in stub-table.yaml, row good 'epoch'"),
        ({"settings": {"x.y": 4}}, [], "unknown parameter in stub-table.yaml, row good 'x.y'"),
        ({"metrics": ["score"]}, [], "rows.good.paper: figures belong to one of `metrics`"),
    ):
        with pytest.raises(ConfigError, match=told):
            call(table(**changes), *arguments)
    with pytest.raises(UnknownName, match=r"known: wbc-table-1, .* wbc-table-1: Seven segm"):
        call("wbc-tabel-1")
    assert tracker().find({}) == []


def test_tables_are_listed_with_their_rows(workplace):
    code, shown = call()
    assert code == 0 and call("--list") == (0, shown)
    for name in ("wbc-table-1", "wbc-table-2", "leukemia-table-1", "lymphoma-table-2", "r_unet"):
        assert name in shown


@pytest.mark.slow
def test_a_table_survives_kill_9(workplace):
    """Generated smears; the split that had finished is not trained again."""
    folder = workplace / "mine" / "experiments" / "wbc_segmentation"
    (folder / "tables").mkdir(parents=True)
    smears = yaml.safe_load(
        (workplace / "experiments/wbc_segmentation/smgnn_smears.yaml").read_text()
    )
    smears["data"] |= {"count": 16, "size": 48}
    smears["params"] |= {"epochs": 30, "validate_every": 1}
    smears["sweep"] = {"checkpoint_seconds": 0}
    (folder / "smgnn.yaml").write_text(json.dumps(smears))
    row = {"label": "SMGNN", "experiment": "smgnn", "paper": {"dice": 0.9}}
    document = TABLE | {"metrics": ["dice"], "rows": {"smgnn": row}}
    path = folder / "tables" / "t.yaml"
    path.write_text(json.dumps(document))
    command = [sys.executable, "-m", "hemaml.cli", "reproduce", str(path), "--splits", "2"]
    mlflow = tracker("wbc_segmentation")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 200
        while not (done := mlflow.find({"kind": "split", "outcome": "finished"})):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
    code, shown = call(str(path), "--splits", "2")
    assert code == 0
    assert "data smears (" in shown and "16 images instead of 24" in shown
    splits = mlflow.find({"kind": "split"})
    assert len(splits) == 2 and {run.status for run in mlflow.find({})} == {"FINISHED"}
    (kept,) = [run for run in splits if run.id == done[0].id]
    assert kept.end_ms == done[0].end_ms or kept.metrics["train_s"] == done[0].metrics["train_s"]
    assert len(mlflow.find({"kind": "evaluation"})) == len(mlflow.find({"kind": "table"})) == 1


TIMES = {
    "about": "Two segmenters against the clock.",
    "source": "Nobody 2026, Table 3",
    "data": {"name": "smears", "images": 4, "sides": [40, 40]},
    "timed": 3,
    "metrics": ["params_total", "seconds/cpu", "superpixels/cpu", "network/cpu", "clean_up/cpu"],
    "rows": {
        "unet": {"label": "U-Net", "experiment": "unet", "paper": {"seconds/cpu": 0.1}},
        "smgnn": {"label": "SMGNN", "experiment": "smgnn", "set": ["params.width=6"]},
    },
}


@pytest.fixture
def times(workplace):
    """A table of times and its experiments; its path."""
    folder = workplace / "timed" / "wbc_segmentation"
    (folder / "tables").mkdir(parents=True)
    for name, params in (("unet", {"width": 1 / 64}), ("smgnn", {})):
        document = {
            "objective": f"wbc_segmentation.{name}",
            "question": "?",
            "data": {"reader": "smears", "count": 4, "size": 40},
            "params": params,
        }
        (folder / f"{name}.yaml").write_text(json.dumps(document))
    path = folder / "tables" / "times.yaml"
    path.write_text(json.dumps(TIMES))
    return str(path)


def test_a_table_of_times_trains_nothing_and_shows_the_parts(times):
    found = hemaml.reproduce(times)
    unet, smgnn = found.rows
    assert found.complete and "superpixels/cpu" not in unet.scores
    for row, parts in ((unet, ("network", "clean_up")), (smgnn, TIMES["metrics"][2:])):
        whole = row.scores["seconds/cpu"][0]
        within = sum(row.scores[f"{part.removesuffix('/cpu')}/cpu"][0] for part in parts)
        assert 0.5 * whole < within <= whole, "parts are most of it"
    assert unet.scores["params_total"][0] > 0
    segments = tracker("wbc_segmentation")
    assert [run.tags["kind"] for run in segments.find({})] == ["table"]
    assert "3 passes" in segments.read_text(found.run_id, "table.html")
    for name in ("splits", "seeds", "workers"):
        with pytest.raises(ConfigError, match="leave `splits`, `seeds` and `workers` out"):
            hemaml.reproduce(times, **{name: 2})
    (line, *_) = csv.DictReader(io.StringIO(segments.read_text(found.run_id, "table.csv")))
    assert (line["passes"], line["split"], line["splits"]) == ("3", "", "")
    multiple = smgnn.scores["seconds/cpu"][0] / unet.scores["seconds/cpu"][0]
    assert f"x {multiple:.3g}" in segments.read_text(found.run_id, "table.html")


def test_a_row_of_times_that_fails_costs_no_other_and_keeps_nothing_old(times, monkeypatch):
    before = hemaml.reproduce(times)
    segments = tracker("wbc_segmentation")
    assert "unet/seconds/cpu" in segments.get(before.run_id).metrics

    def full(self, images):
        raise MemoryError

    monkeypatch.setattr(ConvolutionalModel, "predict", full)
    again = hemaml.reproduce(times)
    assert again.run_id == before.run_id and not again.complete
    assert [bool(row.reason) for row in again.rows] == [True, False]
    assert "3 images need more memory than cpu has" in again.rows[0].reason
    kept = segments.get(again.run_id).metrics
    assert "unet/seconds/cpu" not in kept and "smgnn/seconds/cpu" in kept


@pytest.mark.parametrize(
    ("sets", "told"),
    [(["data.count=2"], "`timed` must be at most"), (["device=cuda"], "needs a GPU")],
)
def test_times_that_cannot_be_taken_as_asked_are_not_taken_otherwise(times, sets, told):
    if sets == ["device=cuda"] and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    found = hemaml.reproduce(times, overrides=sets)
    assert all(told in row.reason for row in found.rows)


def test_a_table_of_times_has_no_share_to_train_on(times):
    path = Path(times)
    path.write_text(json.dumps({**TIMES, "train": 0.8}))
    with pytest.raises(ConfigError, match="leave `train`"):
        hemaml.reproduce(times)


def test_a_row_without_a_model_before_training_is_said(table):
    found = hemaml.reproduce(table(timed=2, metrics=["params_total", "score"]))
    assert not found.complete
    assert all("offers untrained models" in row.reason for row in found.rows)
