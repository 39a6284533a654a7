"""The page of `hemaml serve` as people meet it: the real server, real images, headless Chromium."""

import csv
import io
import os
import re
from pathlib import Path

import pytest
from chromium import chromium
from needs import needed
from serve.fakes import FakeRegistry, picture, running, served
from serve.stores import KINDS

from hemaml.serve.answers import NOTICE
from hemaml.serve.app import PAGE
from hemaml.serve.server import start
from hemaml.serve.settings import ServeSettings

pytestmark = pytest.mark.slow
WEB = PAGE.parent
WAIT_MS = 90_000
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
SERIOUS = ("serious", "critical")
REAL = {
    "leukemia": ("ALL_images", "Early/*"),
    "lymphoma": ("malignant_lymphoma", "CLL/*"),
    "wbc_segmentation": ("segmentation_WBC", "Dataset 2/*.bmp"),
    "wbc_type": ("PBC", "neutrophil/*"),
}
"""By registered name: where real images of its task lie."""


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, once there is a page to look at."""
    if not (PAGE / "index.html").is_file():
        needed("the built page: `make page`, with Node 20 or newer")
    with chromium() as launched:
        yield launched


@pytest.fixture
def visit(browser):
    """Opens a page; nothing may be reported to its console."""
    opened, faults = [], []

    def open_page(address, scheme="light", viewport=DESK):
        context = browser.new_context(color_scheme=scheme, viewport=viewport)
        opened.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda m: m.type in ("error", "warning") and faults.append(m.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        return page

    yield open_page
    for context in opened:
        context.close()
    # Chromium reports each answer of 400 and more, which the tests of refusals ask for.
    assert [f for f in faults if "Failed to load resource" not in f] == []


@pytest.fixture(scope="module")
def address(store):
    """Of a server of the store's champions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlruns/mlflow.db")
        patch.chdir(store)
        with running(start(ServeSettings(port=0))) as client:
            yield client.address


def choose(page, model):
    page.locator("select:has(optgroup)").select_option(model)


def upload(page, *files):
    page.locator("input[type=file]").set_input_files([str(file) for file in files])


def result(page, name):
    return page.get_by_role("region", name=f"Result of {name}")


def png(folder, name, size=64):
    file = folder / name
    file.write_bytes(picture(side=size))
    return file


@pytest.mark.parametrize("name", KINDS)
def test_a_real_image_of_each_task_is_answered_and_explained(visit, address, real_data, name):
    folder, pattern = REAL[name]
    files = sorted((real_data / folder).glob(pattern))[:1]
    if not files:
        pytest.skip(f"needs images of {folder}")
    page = visit(address)
    choose(page, name)
    upload(page, *files)
    found = result(page, files[0].name)
    found.get_by_text(f"Answered by {name.replace('_', ' ')}, version 1.").wait_for()
    shown = found.get_by_role("img", name=re.compile("As uploaded"))
    assert shown.evaluate("image => image.naturalWidth") > 0
    if name == "wbc_segmentation":
        found.get_by_role("rowheader", name="nucleus").wait_for()
        assert found.locator("svg.outlines path.line").count() == 2
    if name == "lymphoma":
        heat = found.get_by_role("img", name=re.compile("Where the model sees"))
        heat.wait_for()
        found.get_by_label("Overlay").fill("20")
        assert heat.evaluate("image => getComputedStyle(image).opacity") == "0.2"
        found.get_by_label("Method").select_option("eigencam")
        found.get_by_role("img", name=re.compile("by eigencam")).wait_for()
    if name == "leukemia":
        found.get_by_role("region", name="Nearest training images").wait_for()
        assert found.get_by_text("similarity").count() == 4
    page.get_by_text(NOTICE).wait_for()


def test_a_batch_is_a_table_and_a_file(visit, address, tmp_path):
    page = visit(address)
    choose(page, "wbc_type")
    named = [png(tmp_path, name) for name in ("b.png", "a.png", "=cmd.png")]
    upload(page, *named)
    page.get_by_text("3 images answered").wait_for()
    table = page.get_by_role("region", name="Table of all images")
    table.get_by_role("button", name="image").click()
    first = [row.split("\t")[0] for row in table.get_by_role("row").all_inner_texts()[1:]]
    assert sorted(first) == sorted(["a.png", "b.png", "=cmd.png"])
    assert first.index("a.png") < first.index("b.png")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    assert [row["image"] for row in rows] == ["b.png", "a.png", "'=cmd.png"]
    for row in rows:
        shares = [float(value) for key, value in row.items() if key.startswith("p(")]
        assert sum(shares) == pytest.approx(1, abs=1e-4) and row["notice"] == NOTICE
        assert row["model"] == "models:/wbc_type/1"


def test_a_broken_file_is_told_and_the_others_are_answered(visit, address, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture(side=64)[:200])
    page = visit(address)
    choose(page, "wbc_type")
    upload(page, broken, png(tmp_path, "good.png"))
    page.get_by_text("2 images answered").wait_for()
    alert = result(page, "broken.png").get_by_role("alert")
    assert "broken.png" in alert.inner_text()
    page.get_by_role("button", name=re.compile("^good.png")).first.click()
    result(page, "good.png").get_by_text("Answered by wbc type, version 1.").wait_for()


def test_a_huge_file_is_refused_with_the_rule(visit, in_store, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(picture(side=64) + os.urandom(200_000))
    with running(start(ServeSettings(port=0, bytes=100_000))) as client:
        page = visit(client.address)
        upload(page, large)
        result(page, "large.png").get_by_role("alert").wait_for()
        assert page.get_by_role("button", name="Try again").is_visible()


def test_a_swapped_champion_and_a_lost_server_are_told(visit, tmp_path):
    registry = FakeRegistry()
    with served(registry) as client:
        page = visit(client.address)
        upload(page, png(tmp_path, "one.png"))
        result(page, "one.png").get_by_text("Answered by stub, version 1.").wait_for()
        registry.meant["stub"] = 2
        while client.champions.get("stub").facts.version == 1:
            page.wait_for_timeout(50)
        upload(page, png(tmp_path, "two.png"))
        page.get_by_role("button", name=re.compile("^two.png")).first.click()
        result(page, "two.png").get_by_text("Answered by stub, version 2.").wait_for()
    upload(page, png(tmp_path, "three.png"))
    page.get_by_role("button", name=re.compile("^three.png")).first.click()
    alert = result(page, "three.png").get_by_role("alert")
    alert.get_by_text("See whether `hemaml serve` is running").wait_for()


def test_a_token_is_asked_for(visit, tmp_path):
    with served(FakeRegistry(), token="t" * 20) as client:
        page = visit(client.address)
        page.get_by_label("Token").fill("t" * 20)
        page.get_by_role("button", name="Use it").click()
        upload(page, png(tmp_path, "one.png"))
        result(page, "one.png").get_by_text("Answered by stub, version 1.").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_it_can_be_used_by_all(visit, address, scheme, viewport, tmp_path):
    axe = WEB / "node_modules" / "axe-core" / "axe.min.js"
    page = visit(address, scheme, viewport)
    choose(page, "lymphoma")
    upload(page, png(tmp_path, "a.png"), png(tmp_path, "b.png"))
    page.get_by_text("2 images answered").wait_for()
    result(page, "a.png").get_by_label("Overlay").wait_for()
    page.get_by_text("Model card").click()
    page.get_by_text("Intended use.").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate(axe.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run().then(r => r.violations.map(v => [v.impact, v.id, v.help]))")
    assert [one for one in found if one[0] in SERIOUS] == []


def test_the_keyboard_reaches_all(visit, address, tmp_path):
    page = visit(address)
    choose(page, "wbc_type")
    upload(page, png(tmp_path, "a.png"), png(tmp_path, "b.png"))
    page.get_by_text("2 images answered").wait_for()
    page.get_by_role("button", name=re.compile("^a.png")).first.focus()
    page.keyboard.press("ArrowDown")
    result(page, "b.png").wait_for()
    assert "b.png" in page.evaluate("document.activeElement.innerText")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # removes it
    result(page, "a.png").wait_for()
