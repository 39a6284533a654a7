"""Reports of real sweeps in a real store, of an objective that costs nothing."""

import json
import re
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import pytest

import hemaml
from hemaml import training
from hemaml.core import settings
from hemaml.core.errors import ConfigError, StoreError, UnknownName
from hemaml.core.experiment import plan_from
from hemaml.explain import faithfulness
from hemaml.report.gather import read_sweep
from hemaml.report.tables import MAPS, by_group
from hemaml.tracking.mlflow_tracker import MlflowTracker

MODES = {"type": "categorical", "choices": ["fine", "nan", "boom"]}


def swept(name="stub", space=None, **changes):
    import stub

    document = deepcopy(stub.EXPERIMENT) | {"name": name} | changes
    document["sweep"] = document["sweep"] | {"trials": 8, "confirm_seeds": 2}
    return hemaml.sweep(plan_from(document, space or stub.SPACE))


def tracker():
    return MlflowTracker(settings.tracking_uri(), "stub")


def titles(report):
    return [re.sub(":.*", "", table.title) for table in report.tables]


def table(report, title):
    return next(t for t in report.tables if t.title.startswith(title))


def test_a_report_of_one_sweep_says_who_won_and_is_pushed_to_its_run(stub):
    space = {**stub.SPACE, "mode": MODES, "width": {"type": "int", "low": 1, "high": 9}}
    result = swept(space=space, question="Is <b>this</b> </script> safe?")
    report = hemaml.report(result.id)
    assert report.sweeps == [result.id] and report.path.parent.name == "reports"
    assert titles(report) == [
        "Winners",
        "Leaderboard of the search",
        "Beside the paper",
        "By class",
        "What did not finish",
    ]
    frame = result.trials()
    done = frame[frame["ending"] == "finished"].sort_values("score", ascending=False)
    board = table(report, "Leaderboard")
    assert [int(row[0]) for row in board.rows] == list(done["trial"])
    assert board.rows[0][1] == f"{done['score'].iloc[0]:.4f}"
    mean, spread = result.confirmed["score"]
    winner = table(report, "Winners").rows[0]
    assert winner[0] == result.id and winner[2] == f"{mean:.4f} ± {spread:.4f}"
    (row,) = table(report, "Beside the paper").rows
    assert row[0] == "score" and row[3] == "0.5" and row[4] == f"{mean - 0.5:+.4f}"
    reasons = {row[0]: row for row in table(report, "What did not finish").rows}
    assert "something broke" in reasons["failed"][2] and "nan" in reasons["diverged"][2]
    lost = frame[frame["ending"] != "finished"]
    assert sum(int(row[1]) for row in reasons.values()) == len(lost)
    page = report.path.read_text()
    assert tracker().read_text(result.run_id, "report.html").count("<figure>") == page.count(
        "<figure>"
    )
    assert report.link.endswith(f"{result.run_id}?workflowType=machine_learning")
    assert "Is &lt;b&gt;this&lt;/b&gt; &lt;/script&gt; safe?" in page


def test_the_page_needs_no_network_and_holds_figures_as_data(stub):
    result = swept()
    page = hemaml.report(result.id).path.read_text()
    own = page.replace("https://plotly.com", "")
    assert not re.search(r'(src|href)="(?!http://127\.0\.0\.1|#)', own.split("<script>")[0])
    found = re.findall(r'<script type="application/json" id="figure-\d+">(.*?)</script>', page)
    figures = [json.loads(text) for text in found]
    assert len(figures) == page.count('class="plot"') >= 4
    assert {"scatter", "parcoords", "bar"} <= {t["type"] for f in figures for t in f["data"]}


def test_names_are_sweeps_experiments_files_or_tasks(stub):
    first, second = swept("one"), swept("two", register="mine")
    assert hemaml.report("one").sweeps == [first.id]
    assert hemaml.report("experiments/stub/two.yaml").sweeps == [second.id]
    both = hemaml.report("stub", output="here/both.html")
    assert both.sweeps == [second.id, first.id] and both.path.is_file() and not both.link
    assert len(table(both, "Winners").rows) == 2
    assert "Score against size" not in both.path.read_text().split("<section")[2]
    assert hemaml.report().sweeps == both.sweeps
    with pytest.raises(UnknownName, match=r"'three'; known: .*one.*"):
        hemaml.report("three")
    with pytest.raises(StoreError, match="--output"):
        hemaml.report("one", output="/dev/null/report.html")


def test_only_what_may_be_compared_stands_in_one_table(stub):
    swept("one")
    swept("two", data={"count": 30, "name": "x"})
    goals = [{"metric": "params_total", "direction": "minimize"}]
    document = deepcopy(stub.EXPERIMENT) | {"name": "three"}
    document["sweep"] = document["sweep"] | {"goals": goals}
    hemaml.sweep(plan_from(document, stub.SPACE))
    winners = [t for t in hemaml.report().tables if t.title.startswith("Winners")]
    assert [len(t.rows) for t in winners] == [1, 2]
    assert "validation parts differ" in winners[1].note


def test_a_store_without_sweeps_says_how_to_get_one(stub):
    with pytest.raises(ConfigError, match="hemaml sweep"):
        hemaml.report()


def test_points_come_back_as_they_were_searched(stub):
    space = {
        "mode": {"type": "categorical", "choices": ["fine"]},
        "width": {"type": "categorical", "choices": [2, 4]},
        "x": {"type": "float", "low": 0, "high": 1, "when": {"width": 2}},
    }
    result = swept(space=space)
    sweep = read_sweep(tracker().get(result.run_id))
    assert [t.point for t in sweep.trials] == [t.point for t in result.searched]
    assert {len(t.point) for t in sweep.trials} == {2, 3}
    assert set(sweep.by_class) == {"no", "yes"} and by_group(sweep) is None
    grouped = by_group(replace(sweep, by_group={"p1": 0.9, "p2": 0.25, "p3": 0.9}))
    assert grouped.rows == [["p2", "0.2500"], ["p1", "0.9000"], ["p3", "0.9000"]]


@pytest.fixture
def measured(monkeypatch):
    """Each model that is kept has numbers on its maps, of which one is undefined, and another."""
    found = {"explain/nuclei_energy": 0.25, "explain/sanity_similarity": float("nan"),
             "explain/silhouette": 0.5, "explain/images": 8}  # fmt: skip

    def measurements(names, model, data, device):
        return {"explain/deletion": model.x, **found}

    monkeypatch.setattr(training, "measurements", measurements)


def test_what_was_measured_of_the_winners_maps_is_told_with_how_to_read_it(stub, measured):
    result = swept()
    report = hemaml.report(result.id)
    shown = table(report, "How far its maps can be believed")
    assert [row[:2] for row in shown.rows] == [
        ["explain/deletion", f"{result.best['x']:.4f} ± 0.0000"],
        ["explain/nuclei_energy", "0.2500 ± 0.0000"],
    ]
    assert "lower is better" in shown.rows[0][2] and "by chance" in shown.rows[1][2]
    assert "on 8 validation images each" in shown.note
    for page in (report.path.read_text(), tracker().read_text(result.run_id, "report.html")):
        assert shown.title in page and shown.rows[0][1] in page


def test_each_number_on_maps_has_words_on_how_to_read_it():
    named = set(re.findall(r"`(explain/\w+)`", faithfulness.__doc__))
    assert set(MAPS) == named - {"explain/images"}  # the note has it


def test_the_command_prints_the_tables_and_the_page(stub, measured):
    result = swept()
    # The stub is known to this process only, and a report needs no objective.
    code = (
        "import hemaml.record as record; record.objective_names = lambda: ['stub.stub']\n"
        "from hemaml.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "report", "stub"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tables = ("Leaderboard of the search", "Beside the paper", "How far its maps can be believed")
    for told in (result.id, *tables, "reports/"):
        assert told in done.stdout
    assert "error" not in done.stderr


def test_a_sweep_and_its_evaluation_stand_in_one_report(stub):
    result = swept()
    hemaml.evaluate(result.plan, point=result.best, splits=3)
    report = hemaml.report(result.id)
    found = table(report, "Evaluations")
    assert all(len(row) == len(found.columns) for row in found.rows)
    assert "Evaluations" in report.path.read_text()
