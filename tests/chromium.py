"""Headless Chromium; where CI is set it must be there."""

import shutil
from contextlib import contextmanager

from needs import needed

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-unsafe-swiftshader",  # parallel coordinates are drawn by WebGL
]  # fmt: skip


@contextmanager
def chromium():
    """The browser, or a test that is skipped for lack of it."""
    if CHROMIUM is None:
        needed("Chromium: `make test` installs it, or `apt-get install chromium`")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        launched = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()
