"""The page of a report, as text and in a real browser; without chromium the latter are skipped."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pear_cli.report.analysis.comparison import compare
from pear_cli.report.analysis.fields import fields
from pear_cli.report.analysis.listing import rows
from pear_cli.report.page.page import page
from pear_cli.store.store import Store

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'{{7*7}}"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def fill(fake):
    """Two datasets, three seeds: dense, pruned and shared; and one experiment of a stranger."""
    for seed in range(3):
        for dataset, best in (("digits", 0.98), ("mnist5k", 0.93)):
            gain = 0.002 * seed
            fake.experiment(dataset, seed, 0, "none", "none", best + gain)
            fake.experiment(dataset, seed, 0.5, kind="none", accuracy=best - 0.02 + gain)
            fake.experiment(dataset, seed, 0.75, accuracy=best - 0.04 + 2 * gain)
    fake.experiment(HOSTILE, normalization="half")


@pytest.fixture(scope="module")
def filled(finished, tmp_path_factory):
    """A store with what `fill` makes, and one real experiment that has predictions."""
    faker = runpy.run_path(str(Path(__file__).parent / "conftest.py"))["Faker"]
    fake = faker(tmp_path_factory.mktemp("filled") / "store")
    shutil.copytree(finished.store.root, fake.store.root)
    fill(fake)
    return fake


@pytest.fixture(scope="module")
def report(filled, tmp_path_factory):
    """The page of that store."""
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(page(compare(rows(filled.store)), ["stage=eval"], 20), "utf-8")
    return file


def test_the_report_command_writes_one_file_and_prints_its_name(pear, filled):
    said = pear("report", "dataset=digits", "--out", "r.html", "--store", str(filled.store.root))
    assert (said.code, said.out) == (0, "r.html\n"), said.err
    with open("r.html", encoding="utf-8") as file:
        text = file.read()
    assert "chosen by <code>dataset=digits</code>" in text
    assert "mnist5k" not in text


def test_the_page_loads_nothing_and_runs_only_its_own_script(report):
    text = report.read_text("utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:,)""", text.replace("&lt;img src=x", ""))
    assert not re.findall(r"url\(|@import", text)
    assert re.search(r"script-src &#39;sha256-|script-src 'sha256-", text)
    assert text.count("<script") == 2


def test_texts_of_strangers_are_text(report):
    text = report.read_text("utf-8")
    assert "<img src=x" not in text
    assert "alert(1)</script>" not in text
    assert "&lt;img src=x" in text
    assert "{{7*7}}" in text


def test_a_damaged_file_is_a_note_and_the_rest_is_drawn(finished, tmp_path):
    shutil.copytree(finished.store.root, tmp_path / "store")
    store = Store(tmp_path / "store")
    (store.path("eval", finished.made["eval"].key) / "predictions.safetensors").write_bytes(b"x")
    text = page(compare(rows(store)))
    assert "confusion: " in text
    assert "Importance (taylor)" in text


def test_a_report_of_nothing_says_so(pear, fake):
    fake.experiment()
    said = pear("report", "dataset=cifar10", "--store", str(fake.store.root))
    assert (said.code, said.out) == (1, "")
    assert "has no evaluations matching dataset=cifar10" in said.err


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--format", "pdf"], 'no format "pdf"'), (["--out", "report.doc"], "does not say which format")],
)
def test_an_unknown_format_is_a_usage_error(pear, words, says):
    said = pear("report", *words)
    assert said.code == 2
    assert says in said.err


def test_a_table_goes_to_stdout(pear, filled):
    said = pear("report", "dataset=digits", "--format", "json", "--store", str(filled.store.root))
    assert {line["dataset"] for line in json.loads(said.out)} == {"digits"}


def test_a_report_of_2000_artifacts_takes_seconds_and_no_torch(fake):
    experiment = {name: artifact.path for name, artifact in fake.experiment().items()}
    for number in range(334):
        clone(fake, experiment, number)
    program = (
        "import sys, time; from pathlib import Path; from pear_cli.store.store import Store;"
        "from pear_cli.report.analysis.comparison import compare;"
        "from pear_cli.report.analysis.listing import rows;"
        "from pear_cli.report.page.page import page;"
        f"text = page(compare(rows(Store(Path({str(fake.store.root)!r})))));"
        "print('torch' in sys.modules, len(text), time.process_time())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    torch, size, seconds = done.stdout.split()
    assert torch == "False"
    assert int(size) < 10_000_000
    assert float(seconds) < 5  # of the processor: other tests run beside this one


def clone(fake, experiment, number):
    """The same experiment with another learning rate; manifests are rewritten, which is faster."""
    keys = {path.name: f"{number:08x}{path.name[8:]}" for path in experiment.values()}
    for path in experiment.values():
        target = path.with_name(keys[path.name])
        shutil.copytree(path, target)
        (target / "manifest.sha256").unlink()
        text = (path / "manifest.json").read_text()
        for old, new in keys.items():
            text = text.replace(old, new)
        text = text.replace('"lr": 0.01', f'"lr": {0.01 + number / 1e4}')
        text = text.replace('"accuracy": 0.9', f'"accuracy": {0.5 + number / 1e3}')
        (target / "manifest.json").write_text(text)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def show(browser, report):
    """Open the page from its file; what the browser complains of, or asks for, is in `complaints`."""
    pages = []

    def run(width=1280, **how):
        shown = browser.new_page(viewport={"width": width, "height": 800}, **how)
        shown.complaints = []
        shown.on("console", lambda message: shown.complaints.append(message.text))
        shown.on("pageerror", lambda error: shown.complaints.append(str(error)))
        shown.on("dialog", lambda dialog: shown.complaints.append(dialog.message))
        asked = []
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(report.as_uri())
        shown.complaints += [url for url in asked if url not in (report.as_uri(), "data:,")]
        pages.append(shown)
        return shown

    yield run
    for shown in pages:
        shown.close()


def visible(shown, field="model"):
    cells = shown.locator(f'#table tbody tr:visible td[data-name="{field}"]')
    return [text.strip() for text in cells.all_inner_texts()]


def test_the_page_opens_without_complaints_and_every_chart_has_marks(show):
    shown = show()
    charts = shown.locator(".chart svg")
    assert charts.count() >= 12
    count = "all => all.map(svg => svg.querySelectorAll('[role=graphics-symbol][aria-label]').length)"
    assert min(shown.eval_on_selector_all(".chart svg", count)) >= 2
    captions = " ".join(shown.locator("figcaption").all_text_contents())
    said = ("front", "pruned units", "Kendall", "served by", "by epoch", "calibration error", "Mistaken")
    assert [word for word in said if word not in captions] == []
    assert shown.complaints == []


def test_words_filter_rows_and_the_marks_of_charts(show):
    shown = show()
    everything = len(visible(shown))
    shown.fill("#find", "mnist5k 75%")
    assert visible(shown) == ["prune + share + knowledge, 75%"]
    assert shown.inner_text("#count") == f"1 of {everything}"
    assert shown.locator(".chart a:not(.off)").count() == 2  # against size and against ratio
    shown.fill("#find", "")
    shown.select_option("#dataset", "digits")
    assert set(visible(shown, "dataset")) == {"digits"}
    assert shown.locator("#tradeoffs .dataset:visible h3").all_inner_texts() == ["digits"]
    assert shown.complaints == []


def test_a_click_sorts_and_a_second_one_turns_around(show):
    shown = show()
    head = shown.locator("#table thead th", has_text="accuracy, %")

    def accuracies():
        return [float(text.split()[0].split("±")[0]) for text in visible(shown, "accuracy")]

    head.click()
    assert accuracies() == sorted(accuracies(), reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    head.click()
    assert accuracies() == sorted(accuracies())
    head.locator("button").focus()
    shown.keyboard.press("Enter")
    assert accuracies() == sorted(accuracies(), reverse=True)


def test_the_page_computes_the_differences_that_pear_computes(show, filled):
    shown = show()
    lines = compare(rows(filled.store))
    expected = next(one for one in fields(lines) if one.name == "difference")
    cells = shown.locator("#table tbody td[data-name=difference] .said").all_inner_texts()
    assert cells == [expected.text(line) for line in lines]


def test_another_baseline_can_be_chosen_on_the_page(show):
    shown = show()
    shown.select_option("#baseline", "lora · prune + share, 50%")
    shown.fill("#find", "mnist5k")
    found = dict(zip(visible(shown), visible(shown, "difference"), strict=True))
    assert found["prune + share, 50%"] == "baseline"
    assert found["dense"].startswith("+2.00")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window(show, width, scheme):
    shown = show(width, color_scheme=scheme)
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    assert shown.complaints == []


def test_charts_can_be_read_by_night_and_the_reader_can_switch(show):
    shown = show(color_scheme="dark")

    def lightness():
        of = "e => getComputedStyle(e).fill.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 765"
        return shown.locator(".chart svg text").first.evaluate(of)

    assert lightness() > 0.5
    shown.click("#theme")
    assert lightness() < 0.5


def test_a_mark_says_what_it_is_and_lights_its_row_up(show):
    shown = show()
    shown.locator(".chart a").first.hover()
    assert " %, " in shown.inner_text("#tip")
    assert shown.locator("#table tr.lit").count() == 1


def test_all_is_open_in_print(show):
    shown = show()
    assert shown.locator("details:not([open])").count()
    shown.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not shown.locator("details:not([open])").count()
    assert shown.pdf()[:4] == b"%PDF"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_print_is_dark_on_white_whatever_the_screen_is(show, scheme):
    shown = show(color_scheme=scheme)
    if scheme == "light":
        shown.click("#theme")  # dark by the reader's choice
    shown.emulate_media(media="print")
    colour = "name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()"
    printed = [shown.evaluate(colour, name) for name in ("--ink", "--ground", "--c0")]
    assert printed == ["#1c2328", "#ffffff", "#0f7b6c"]


def test_dashed_baselines_go_while_another_one_is_chosen(show):
    shown = show()
    display = "() => getComputedStyle(document.querySelector('.compared_marks')).display"
    reported = shown.evaluate(display)
    assert reported != "none"
    shown.select_option("#baseline", "lora · prune + share, 50%")
    assert shown.evaluate(display) == "none"
    shown.select_option("#baseline", "")
    assert shown.evaluate(display) == reported


def test_captions_say_of_which_seed_a_chart_is(report):
    captions = re.findall("<figcaption>(.*?)</figcaption>", report.read_text("utf-8"))
    assert any("calibration error" in text and "Of seed 0." in text for text in captions)
    assert not any("by epoch" in text and "Of seed" in text for text in captions)
