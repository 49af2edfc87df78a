"""Draw the pictures of the README and the docs from real runs (bash scripts/docs/pictures.sh)."""

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

SCALE = 0.6  # of rich's pixels, in which a letter is 20 high
PICTURES = Path("docs/pictures").absolute()
ONE = "dataset=mnist5k experiment=pear optim.epochs=6"
ALL = "-m dataset=mnist5k,shapes_orientation experiment=dense,prune_only,prune_share,pear optim.epochs=6"
HEADS = "dataset=mnist5k method=heat optim.epochs=6"
LIGHT = TerminalTheme(
    (255, 255, 255),
    (36, 41, 47),
    [
        (36, 41, 47), (207, 34, 46), (17, 99, 41), (130, 80, 0),
        (9, 105, 218), (130, 80, 223), (27, 124, 131), (110, 119, 129),
    ],
)  # fmt: skip

# rich's own format names fonts on a network, and draws a window around.
TERMINAL = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font: {char_height}px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-variant-east-asian: full-width;
}}
{styles}
</style>
<defs>{lines}</defs>
<rect x="1" y="1" width="99.8%" height="99%" rx="8" fill="#ffffff" stroke="#d0d7de"/>
<g transform="translate({terminal_x}, 14)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def pear(line: str) -> tuple[str, str]:
    """Carry out a command as on a wide terminal; stdout and stderr."""
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": "120", "TERM": "xterm-256color"}
    words = [sys.executable, "-m", "pear_cli", *shlex.split(line)]
    print(f"pear {line}", file=sys.stderr)
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout, done.stderr


def artifact(line: str) -> str:
    """The key that a command made, or found."""
    return Path(pear(f"{line} -q")[0].split()[-1]).name


def terminal(name: str, command: str, text: str) -> None:
    """Draw a terminal with a command and what it printed."""
    here = re.escape(f"{Path.cwd()}{os.sep}")
    shown = Text.from_ansi(re.sub(here, "", text.rstrip()).expandtabs(16))
    columns = max(len(f"$ {command}"), *(len(line) for line in shown.plain.splitlines()))
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {command}", style="bold"))
    console.print(shown, soft_wrap=True)
    svg = console.export_svg(theme=LIGHT, code_format=TERMINAL, unique_id="pear")
    size = re.compile(r'viewBox="0 0 ([\d.]+)')
    sized = size.sub(lambda match: f'width="{float(match[1]) * SCALE:.0f}" {match[0]}', svg, count=1)
    (PICTURES / name).write_text(sized, "utf-8")


def without(text: str, *titles: str) -> str:
    """What `pear show` printed without some of its sections."""
    head, gap, drawing = text.partition("\n\n")
    kept: list[str] = []
    skipping = False
    for line in head.splitlines():
        plain = re.sub(r"\x1b\[[\d;]*m", "", line)
        skipping = plain.startswith(titles) or (skipping and plain.startswith(" "))
        if not skipping:
            kept.append(line)
        elif kept[-1] != "…":
            kept.append("…")
    return "\n".join(kept) + gap + drawing


def report(name: str) -> None:
    """Draw the top of the page that compares the runs."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("pictures.py: no chromium on PATH; apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        page = Path(folder) / "report.html"
        pear(f"report optim.epochs=6 --out {page}")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shown = browser.new_page(
            viewport={"width": 1200, "height": 780}, color_scheme="light", device_scale_factor=1.5
        )
        shown.goto(page.as_uri())
        shown.wait_for_selector(".chart svg")
        shown.screenshot(path=PICTURES / name)
        browser.close()


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    pear(f"run {ALL}")
    scores, checkpoint = artifact(f"score {ONE}"), artifact(f"checkpoint {ONE}")
    pruned = artifact(f"prune-share {ONE}")
    for stage in ("train", "score"):
        pear(f"{stage} {HEADS}")
    heads = artifact(f"prune-share {HEADS}")

    terminal("run.svg", f"pear run {ONE}", pear(f"run {ONE}")[1])
    terminal("sites.svg", "pear sites", pear("sites")[0])
    for name, key in (("checkpoint.svg", checkpoint), ("heads.svg", heads)):
        shown = without(pear(f"show {key}")[0], "experiment", "environment")
        terminal(name, f"pear show {key[:4]}", shown)
    sweep = "run -m dataset=mnist5k experiment=pear optim.epochs=6 prune.ratio=0.5,0.75 seed=0,1 --dry-run"
    terminal("dry-run.svg", f"pear {sweep}", pear(sweep)[1])
    listing = "ls dataset=mnist5k stage=eval"
    terminal("ls.svg", f"pear {listing}", pear(listing)[0])
    for kind, key in (("importance", scores), ("share-map", pruned)):
        pear(f"plot {kind} {key} --out {PICTURES / kind}.svg")
    report("report.png")


if __name__ == "__main__":
    main()
