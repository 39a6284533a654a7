"""A report in a browser without a network: on light and dark screens, and on paper."""

import pytest

import hemaml

INKS = {"light": "rgb(27, 36, 48)", "dark": "rgb(213, 220, 230)"}


@pytest.fixture
def opened(store, browser, place, request):
    """The page of the sweep, all drawn; nothing may be asked for elsewhere, and no error shown."""
    path = hemaml.report(store.sweep.id).path.resolve()
    context = browser.new_context(color_scheme=request.param, offline=True)
    page, faults = context.new_page(), []
    page.on("console", lambda m: m.type == "error" and faults.append(m.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda r: r.url.startswith("file:") or faults.append(r.url))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]", timeout=60_000)
    yield page, request.param
    context.close()
    assert [fault for fault in faults if not fault.startswith(("data:", "blob:"))] == []


@pytest.mark.parametrize("opened", ["light", "dark"], indirect=True)
def test_every_figure_is_drawn_in_the_colours_of_the_screen(opened):
    page, scheme = opened
    plots = page.locator(".plot")
    assert plots.count() >= 4
    for index in range(plots.count()):
        assert plots.nth(index).locator("svg.main-svg").count() >= 1
    title = page.locator(".plot .xtitle").first
    assert title.evaluate("node => getComputedStyle(node).fill") == INKS[scheme]
    assert page.get_by_text("Does it work?").is_visible()
    assert page.locator("tr.best").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("opened", ["dark"], indirect=True)
def test_paper_is_light_and_has_no_navigation(opened):
    page, _ = opened
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    title = page.locator(".plot .xtitle").first
    assert title.evaluate("node => getComputedStyle(node).fill") == INKS["light"]
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert len(page.pdf()) > 20_000
