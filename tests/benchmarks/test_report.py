"""A report on 10,000 trials: seconds to write it, and to open it in a browser.

    pytest tests/benchmarks/test_report.py -s

The trials are rows that are copied in the database from those of a small sweep of the stub, with
other points and scores, since 10,000 trainings would measure something else.
"""

import os
import shutil
import sqlite3
import time
import uuid

import numpy as np
import pytest

import hemaml
from hemaml.core.experiment import plan_from

NUM_TRIALS = 10_000
TARGET_OPEN_S = 3.0
TIMES = """() => [
  performance.getEntriesByName("first-contentful-paint")[0].startTime, performance.now()]"""
TABLES = ("runs", "tags", "params", "latest_metrics", "metrics")


@pytest.fixture
def crowded(stub):
    """A sweep whose trials have been copied until there are 10,000; its id."""
    result = hemaml.sweep(plan_from(stub.EXPERIMENT, stub.SPACE))
    rng = np.random.default_rng(0)
    with sqlite3.connect("mlruns/mlflow.db") as store:
        store.row_factory = sqlite3.Row
        source = result.searched[0].run_id
        rows = {t: store.execute(f"select * from {t} where run_uuid = ?", (source,)).fetchall()
                for t in TABLES}  # fmt: skip
        copies = {table: [] for table in TABLES}
        for number in range(len(result.searched), NUM_TRIALS):
            new = {"run_uuid": uuid.uuid4().hex}
            score, x = float(rng.normal(0.9, 0.02)), str(rng.uniform())
            for table, originals in rows.items():
                for row in originals:
                    copy = dict(row) | new
                    if copy.get("key") == "trial":
                        copy["value"] = str(number)
                    elif table == "params" and copy["key"] == "x":
                        copy["value"] = x
                    elif "metrics" in table and copy["key"] in ("score", "val/score"):
                        copy["value"] = score
                    copies[table].append(tuple(copy.values()))
        for table, made in copies.items():
            marks = ", ".join("?" * len(made[0]))
            store.executemany(f"insert or ignore into {table} values ({marks})", made)
    store.close()
    return result.id


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
def test_ten_thousand_trials(crowded):
    from playwright.sync_api import sync_playwright

    started = time.perf_counter()
    report = hemaml.report(crowded, output="report.html")
    wrote = time.perf_counter() - started
    flags = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
    flags += ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(report.path.resolve().as_uri(), wait_until="commit")
        page.wait_for_selector("html[data-ready]", timeout=120_000)
        opened, drawn = (seconds / 1000 for seconds in page.evaluate(TIMES))
        browser.close()
    size = report.path.stat().st_size / 1e6
    print(
        f"\n{NUM_TRIALS:,} trials: written in {wrote:.1f} s, {size:.1f} MB; first seen after "
        f"{opened:.2f} s (target {TARGET_OPEN_S:g}), every figure drawn after {drawn:.1f} s,"
        f" on {os.cpu_count()} cores without a GPU"
    )
