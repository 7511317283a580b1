"""The app as it is served, and a browser to visit it with; skipped where there is no Chromium."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
START_S = 60


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """The address of an app, its process, and its runs directory."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    runs = tmp_path_factory.mktemp("runs")
    environment = os.environ | {"CAPSIM_RUNS": str(runs), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "capsim", "app", "--port", str(port)], env=environment, cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://localhost:{port}"
    _wait_for(f"{address}/_stcore/health")
    yield address, process, runs
    process.terminate()
    process.wait()


def _wait_for(address):
    ends = time.monotonic() + START_S
    while time.monotonic() < ends:
        try:
            urllib.request.urlopen(address, timeout=1).read()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"{address} does not answer")


@pytest.fixture(scope="session")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install capsim[dev]")
    if CHROMIUM is None:
        pytest.skip("Chromium is missing (Debian: apt install chromium)")
    with api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, served):
    """Opens a page of the app in a tab of its own, with a visitor's own session."""
    contexts = []

    def open_tab(path="/", **size):
        context = browser.new_context(accept_downloads=True, viewport=size or {"width": 1400, "height": 1000})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.goto(served[0] + path)
        page.wait_for_selector("[data-testid=stMain] [data-testid=stElementContainer]")
        return page

    yield open_tab
    for context in contexts:
        context.close()
