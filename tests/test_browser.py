"""The lab in a real JupyterLab, in a real browser: run the cell, move a slider, start, watch it grow, stop.

Skipped where there is no Chromium. `LABKIT_SCREENSHOT=docs/pictures/lab.png` keeps the picture that the docs show.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: install the package chromium"),
]
PATIENCE = 120_000  # milliseconds


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A JupyterLab that serves one notebook with one cell."""
    folder = tmp_path_factory.mktemp("lab")
    cell = nbformat.v4.new_code_cell("import labkit as lk\n\nlab = lk.lab('chelsea', 'koi_mosaic', size=384)\nlab")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), folder / "lab.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = folder / "settings"
    environment = os.environ | {
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    news = settings / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += [f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=", "--ServerApp.port_retries=0"]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{url}/api", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, "JupyterLab did not start"
                assert time.monotonic() < deadline, "JupyterLab took longer than a minute to start"
                time.sleep(0.5)
        yield f"{url}/lab/tree/lab.ipynb"
    finally:
        server.terminate()
        server.wait(20)


def run_first_cell(page: Page) -> None:
    """Press Shift+Enter until the prompt shows a run: JupyterLab drops one that comes before its kernel is ready."""
    cell = page.locator(".jp-Notebook .jp-CodeCell").first
    for _ in range(PATIENCE // 2000):
        cell.locator(".cm-content").click()
        page.keyboard.press("Shift+Enter")
        page.wait_for_timeout(2000)
        if cell.locator(".jp-InputPrompt").inner_text() != "[ ]:":
            return
    raise AssertionError("JupyterLab did not run the cell")


def test_the_lab_in_the_browser(address: str) -> None:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1100})
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        run_first_cell(page)

        buttons, sliders = page.locator("button.widget-button"), page.locator(".widget-slider")
        start, stop, go_on = (buttons.filter(has_text=text).first for text in ("Start", "Stop", "Go on"))
        start.wait_for()
        picture = page.locator(".widget-image img, img.widget-image").first
        status = page.locator(".widget-html-content")
        photo = picture.get_attribute("src")

        def press(name: str, key: str, times: int) -> None:
            sliders.filter(has_text=name).first.locator(".noUi-handle").focus()
            for _ in range(times):
                page.keyboard.press(key)

        press("steps", "ArrowRight", 20)
        press("step size", "ArrowLeft", 2)
        expect(sliders.filter(has_text="steps").first.locator(".widget-readout")).to_have_text("40")

        start.click()
        expect(status.filter(has_text="of 115").first).to_be_visible()  # five octaves, forty steps to six
        page.wait_for_function("([img, old]) => img.src !== old", arg=[picture.element_handle(), photo])
        early = picture.evaluate("img => img.naturalWidth")
        page.wait_for_function("([img, old]) => img.naturalWidth > old", arg=[picture.element_handle(), early])
        stop.click()
        expect(stop).to_be_disabled()
        stopped = picture.get_attribute("src")
        page.wait_for_timeout(1000)
        assert picture.get_attribute("src") == stopped, "the picture still changes after stop"

        go_on.click()
        expect(status.filter(has_text="step 115 of 115").first).to_be_visible()
        after = picture.get_attribute("src")
        press("before", "ArrowRight", 50)
        page.wait_for_function("([img, old]) => img.src !== old", arg=[picture.element_handle(), after])
        page.wait_for_timeout(500)
        if place := os.environ.get("LABKIT_SCREENSHOT"):
            page.locator(".jp-OutputArea-output").first.screenshot(path=place)
        browser.close()
