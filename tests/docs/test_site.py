"""The documentation as pages: built without a warning, loading nothing, and searched from a file."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="the docs are built where the extra docs is installed")
    pytest.importorskip("material", reason="the docs are built where the extra docs is installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **QUIET})
    assert built.returncode == 0, built.stderr[-3000:]
    return folder


QUIET = {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
LOADED = re.compile(
    r"<(?:script|img|iframe|source)[^>]*src=[\"']?(?:https?:)?//|<link[^>]*href=[\"']?(?:https?:)?//[^>]*>"
)


def test_the_pages_are_built_and_load_nothing_from_a_network(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(list(ROOT.glob("docs/**/*.md")))
    for page in pages:
        assert not LOADED.search(page.read_text("utf-8")), page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"@import|url\(['\"]?(?:https?:)?//", sheet.read_text("utf-8")), sheet


def test_the_reference_has_every_command_and_every_preset(site):
    commands = (site / "reference" / "commands.html").read_text("utf-8")
    assert all(
        f'id="pear-{name}"' in commands for name in ("run", "report-diff", "sweeps-resume", "data-verify")
    )
    for preset in sorted((ROOT / "conf").glob("*/*.yaml")):
        text = (site / "reference" / "settings" / f"{preset.parent.name}.html").read_text("utf-8")
        assert f"{preset.parent.name}={preset.stem}" in text


def test_a_page_opened_from_its_file_can_be_searched_and_complains_of_nothing(site):
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shown, asked = browser.new_page(), []
        shown.on("console", lambda message: asked.append(message.text))
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto((site / "index.html").as_uri())
        shown.locator(".md-search__input").press_sequentially("knowledge checkpoint")
        shown.wait_for_selector(".md-search-result__item a")
        assert "knowledge" in shown.inner_text(".md-search-result__list").lower()
        assert not [said for said in asked if not said.startswith((site.as_uri(), "data:", "about:"))]
        browser.close()
