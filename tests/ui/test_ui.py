"""What people see: the pages that `hemaml ui` names, in headless Chromium."""

import re

import pytest

from hemaml.tracking.views import model_page, run_page

NAME = "stub-stub"
pytestmark = pytest.mark.slow


def address(printed, thing, page):
    """The link that was printed for a page of a thing."""
    block = re.search(rf"^{re.escape(thing)}[^\n]*\n((?:  .*\n?)+)", printed.text, re.M)
    return re.search(rf"^  {re.escape(page)}: (\S+)$", block[1], re.M)[1]


def test_the_run_table_has_the_trials_best_first_with_scores_and_parameters(store, printed, visit):
    page = visit(address(printed, f"sweep {store.sweep.id} (finished)", "trials"))
    page.get_by_role("link", name="stub-trial-0000").wait_for()
    for name in ("score", "params_total", "x"):
        page.locator(".ag-header-cell").get_by_text(name, exact=True).wait_for()
    rows = page.locator(".ag-row[row-id]").evaluate_all(
        "rows => rows.map(r => [Number(r.getAttribute('row-index')), r.getAttribute('row-id')])"
    )
    shown = list(dict(sorted(rows)).values())
    assert shown == list(store.trials["run_id"])
    page.get_by_role("button", name=store.sweep.id).wait_for()  # the menu of views has it
    page.get_by_text(f"Champion stub, score 0.9000 held out: {NAME} v2").wait_for()


def test_the_charts_of_a_sweep_come_first(store, printed, visit):
    page = visit(address(printed, f"sweep {store.sweep.id} (finished)", "charts"))
    ours = page.get_by_text("params_total vs. score")
    page.get_by_text("Parallel Coordinates").wait_for()
    ours.wait_for()
    others = page.get_by_text(re.compile(r"^(val|ci|score|Model metrics)$"))
    others.first.wait_for()
    assert ours.bounding_box()["y"] < min(box["y"] for box in map(_box, others.all()))


def _box(thing):
    return thing.bounding_box() or {"y": float("inf")}


def test_three_runs_side_by_side(store, printed, visit):
    page = visit(address(printed, f"sweep {store.sweep.id} (finished)", "best side by side"))
    page.get_by_text("Comparing 3 Runs from 1 Experiment").wait_for()
    for number in store.trials["trial"][:3]:
        page.get_by_text(f"stub-trial-{number:04d}", exact=True).first.wait_for()
    assert page.get_by_text(f"stub-trial-{store.trials['trial'].iloc[3]:04d}").count() == 0


def test_artifacts_are_previewed(store, visit):
    page = visit(run_page(store.task, store.sweep.run_id).replace("?", "/artifacts?"))
    page.get_by_text("figures", exact=True).click()
    page.get_by_text("history.png", exact=True).click()
    picture = page.locator("img[src*='history.png'], img[src^='blob:']").first
    picture.wait_for()
    page.wait_for_function("image => image.naturalWidth > 200", arg=picture.element_handle())
    page.get_by_text("report.html", exact=True).click()
    page.frame_locator("iframe").locator(".plot .main-svg").first.wait_for()


def test_a_registered_model_shows_its_aliases_and_its_card(store, printed, visit):
    page = visit(address(printed, f"registered model {NAME}", "versions"))
    rows = page.get_by_role("row")
    champion = rows.filter(has_text="Version 2").filter(has_text="@ champion")
    champion.get_by_text("stub: score 0.9000 held out").wait_for()
    rows.filter(has_text="Version 1").filter(has_text="@ previous").wait_for()
    page = visit(address(printed, f"registered model {NAME}", "champion (v2)"))
    assert model_page(NAME, 2) in page.url
    page.get_by_text("Intended use.").wait_for()
    page.get_by_role("cell", name="0.9000").first.wait_for()


def test_the_table_of_models_has_their_scores_versions_and_data(store, visit):
    page = visit(f"#/experiments/{store.task.experiment_id}/models?workflowType=machine_learning")
    for told in (f"{NAME} v2", "stub.yaml"):
        page.get_by_text(told).first.wait_for()
