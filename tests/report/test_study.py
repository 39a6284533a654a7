"""The figures that experiments ask for, of real sweeps of an objective that costs nothing."""

import io
import json
import re
from copy import deepcopy
from statistics import mean, stdev

import numpy as np
import pytest
from PIL import Image

import hemaml
from hemaml.core import settings
from hemaml.core.experiment import plan_from
from hemaml.report import study_pictures, study_tables
from hemaml.report.gather import read_sweep
from hemaml.report.study import studies
from hemaml.report.study_figure import draw_study, log_ticks
from hemaml.tracking.mlflow_tracker import MlflowTracker

X = {"type": "categorical", "choices": [0, 0.3, 1]}
SEEDS = {"type": "int", "low": 0, "high": 2}
WIDTHS = {"type": "categorical", "choices": [2, 40]}
BY_X = {
    "name": "by_x", "title": "Score <by> x", "x": "x", "by": ["width"],
    "words": {"x": "the x", "score": "Score", "width=2": "narrow", "x=0": "none"},
    "source": "Nobody 2026, Table 0", "paper": [{"x": 0.3, "y": 0.5, "name": "theirs"}],
}  # fmt: skip
BY_SIZE = {"name": "by_size", "title": "By size", "x": "params_total", "by": ["width"],
           "size": "ms_per_image", "source": "Nobody 2026",
           "paper": [{"x": 31e6, "y": 0.9}]}  # fmt: skip


def swept(figures, space, **sweep):
    import stub

    document = deepcopy(stub.EXPERIMENT) | {"figures": figures}
    document["sweep"] = {"trials": 40, "sampler": "grid", "confirm_seeds": 0, **sweep}
    return hemaml.sweep(plan_from(document, space))


def record_of(result):
    return MlflowTracker(settings.tracking_uri(), "stub").get(result.run_id)


@pytest.fixture
def result(stub):
    return swept([BY_X, BY_SIZE], {"x": X, "width": WIDTHS, "seed": SEEDS})


def test_a_mark_is_the_mean_over_seeds_with_their_deviation(result):
    study, _ = studies(read_sweep(record_of(result)))
    trials = result.trials()
    assert len(trials) == 18 and list(study.series) == ["narrow", "width 40"]
    for series, width in (("narrow", 2), ("width 40", 40)):
        marks = study.series[series]
        assert [mark.x for mark in marks] == [0, 0.3, 1]
        for mark in marks:
            same = (trials["x"] == mark.x) & (trials["width"] == width)
            scores = list(trials[same]["score"])
            assert len(set(scores)) == mark.num == 3, "a seed draws another model"
            assert (mark.y, mark.spread) == (
                pytest.approx(mean(scores)),
                pytest.approx(stdev(scores)),
            )
    assert study.note.startswith("Mean over 3 seeds with their standard deviation")
    assert "Nobody 2026, Table 0" in study.note
    check_drawing(result)


def test_differences_are_taken_trial_by_trial_and_draws_averaged(stub):
    gain = {"name": "gain", "title": "Gain", "x": "x", "y": "score", "minus": "params_total",
            "over": ["width"], "words": {"params_total": "size"}}  # fmt: skip
    result = swept([gain], {"x": X, "width": WIDTHS, "seed": SEEDS})
    (study,) = studies(read_sweep(record_of(result)))
    tracker = MlflowTracker(settings.tracking_uri(), "stub")
    trials = tracker.find({"kind": "trial"}, parent=result.run_id)
    assert [mark.x for mark in study.marks] == [0, 0.3, 1]
    for mark in study.marks:
        same = [trial.metrics for trial in trials if float(trial.params["x"]) == mark.x]
        gains = [metrics["score"] - metrics["params_total"] for metrics in same]
        assert mark.num == len(gains) == 6
        assert (mark.y, mark.spread) == (pytest.approx(mean(gains)), pytest.approx(stdev(gains)))
    assert study.height == "score less size"
    assert study.note.startswith("Mean over 6 values of width with their standard deviation")


def test_the_parent_run_has_each_figure_as_png_and_as_a_page_that_works_offline(result):
    tracker = MlflowTracker(settings.tracking_uri(), "stub")
    for name in ("by_x", "by_size"):
        assert tracker.has_artifact(result.run_id, f"figures/{name}.png")
        page = tracker.read_text(result.run_id, f"figures/{name}.html")
        assert "Plotly.newPlot" in page and 'src="http' not in page
        assert "prefers-color-scheme: dark" in page
    assert "Score &lt;by&gt; x" in tracker.read_text(result.run_id, "figures/by_x.html")
    report = tracker.read_text(result.run_id, "report.html")
    assert "Score &lt;by&gt; x" in report and "By size" in report
    for picture in study_pictures(record_of(result)):
        pixels = np.asarray(Image.open(io.BytesIO(picture.png)))
        assert (pixels[:, -8:] == 255).all() and (pixels[:8] == 255).all()
        assert pixels.std() > 10
    check_tables(result)


def check_tables(result):
    """The same in numbers."""
    by_x, by_size = study_tables(record_of(result))
    assert list(by_x.columns) == ["line", "the x", "Score", "trials"]
    assert [row[1] for row in by_x.rows] == ["0", "0.3", "1"] * 2 + ["0.3"]
    assert re.fullmatch(r"0\.\d{4} ± 0\.\d{4}", by_x.rows[0][2]) and by_x.rows[0][3] == "3"
    assert list(by_x.rows[-1]) == ["paper: theirs", "0.3", "0.5", "–"]
    assert {row[1] for row in by_size.rows} == {"20", "400", "31,000,000"}
    tables = hemaml.report(result.id).tables
    assert [t.title for t in tables][1:3] == ["Score <by> x", "By size"]


def check_drawing(result):
    """Choices stand evenly, lines side by side, the paper's points among them."""
    study, sized = studies(read_sweep(record_of(result)))
    figure = draw_study(study)
    assert list(figure.layout.xaxis.ticktext) == ["none", "0.3", "1"]
    narrow, wide, paper = figure.data
    np.testing.assert_allclose(narrow.x, [0, 1, 2], atol=0.1)
    assert (np.asarray(narrow.x) < np.asarray(wide.x)).all(), "bars would cover each other"
    assert narrow.mode == "lines+markers" and list(narrow.error_y.array) == pytest.approx(
        [mark.spread for mark in study.series["narrow"]]
    )
    assert (list(paper.x), list(paper.y), list(paper.text)) == ([1], [0.5], ["theirs"])
    bubbles = draw_study(sized)
    assert bubbles.layout.xaxis.type == "log" and bubbles.data[0].mode == "markers+text"
    json.dumps(json.loads(figure.to_json()))


def test_kinds_without_order_are_not_joined(stub):
    figure = {"name": "modes", "title": "Modes", "x": "mode"}
    result = swept([figure], {"mode": {"type": "categorical", "choices": ["fine", "boom"]}})
    (study,) = studies(read_sweep(record_of(result)))
    assert [mark.x for mark in study.marks] == ["fine"], "what failed has no mark"
    assert draw_study(study).data[0].mode == "markers"
    assert study.note == "One trial a mark, on validation."


def test_a_sweep_without_a_finished_trial_has_no_figure(stub):
    space = {"mode": {"type": "categorical", "choices": ["boom"]}}
    result = swept([{"name": "modes", "title": "Modes", "x": "mode"}], space)
    assert study_tables(record_of(result)) == []


@pytest.mark.parametrize(
    ("span", "ticks"),
    [((3, 40), [1, 2, 5, 10, 20, 50, 100, 200, 500]), ((20, 7e5), [10**n for n in range(1, 7)])],
)
def test_ticks_of_a_logarithm(span, ticks):
    assert log_ticks(span) == pytest.approx(ticks)
