"""Every table that pear prints fits the terminal, whatever the names in it are."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.color import Color

from pear_cli.experiment.planning import Planned
from pear_cli.experiment.step import Step
from pear_cli.report.analysis import benchmark, difference, listing
from pear_cli.report.terminal import checks, datasets, layout, show, standings, sweeps, table
from pear_cli.report.terminal.diff import print_difference
from pear_cli.report.terminal.layout import Column
from pear_cli.report.terminal.stages import print_plan, print_stages
from pear_cli.store.sweeps import Progress, Sweep

LONG = "a_dataset_whose_name_is_longer_than_any_column_should_be"
WIDE = "画像データセットの長い名前と、もっと長い名前"
WIDTHS = (60, 80, 200)


def listed(fake):
    for dataset, task in ((LONG, {}), (WIDE, {}), ("digits", {}), ("vtab", {"task": "dsprites_orientation"})):
        fake.experiment(dataset=dataset, weights="random:0", select="test_oracle", **task)
        fake.experiment(dataset=dataset, seed=1, ratio=0.75, rule="nearest", kind="none", accuracy=0.93)
    return listing.rows(fake.store)


def evaluations(fake):
    return [row for row in listed(fake) if row.artifact.stage == "eval"]


def compared(fake):
    made = fake.experiment(dataset=LONG)["eval"], fake.experiment(dataset=WIDE, ratio=0.25)["eval"]
    return difference.between(*made, fake.store)


def known(fake):
    words = (f"dataset={WIDE}", "prune.ratio=0.25,0.5,0.75", "seed=0,1,2,3,4,5,6,7", "method=lora,spa")
    sweep = Sweep("run", words, True, "/home", f"/outputs/{LONG}", None, 96, "2026-01-01T10:00:00+00:00")
    unknown = Progress(1, 0, 0, None, False, True)
    return [(sweep, Progress(12, 3, 2, 79, True, True)), (replace(sweep, size=None), unknown)]


def failures(fake):
    message = f"{LONG}/train/{WIDE}.jpg cannot be read: image file is truncated\nrun: pear data verify"
    record = {"job": 11, "overrides": [f"dataset={WIDE}", "prune.ratio=0.5"], "error": {"message": message}}
    return [record, record]


def planned(fake):
    steps = [Step(name, "train", {}, {}, {}, "a") for name in ("prune-share.1", "adapt.1", "score", "eval")]
    states = ("there", "running", "started", "to do")
    return [
        Planned(step, Path(f"/store/train/{name}"), state, (0, 1), 10)
        for name in range(2)
        for step, state in zip(steps, states, strict=True)
    ]


def audited(fake):
    meaning = f"an image does not depend on the others of its batch, {WIDE} {LONG}"
    return [{"check": "pruned and shared", "result": "FAIL", "value": 1.5e-3, "meaning": meaning}] * 3


def described(fake):
    split = {"images": 123_456, "fingerprint": "f" * 64}
    splits = dict.fromkeys(("train800", "val200", "train800val200", "test"), split)
    there = {"dataset": WIDE, "classes": 1000, "splits": splits, "present": True, "source": ""}
    there["places"] = [f"/data/{WIDE}/{LONG}"]
    gone = {"dataset": LONG, "splits": None, "present": False, "source": f"https://example.org/{LONG}.tar"}
    return [there, there | gone]


def stages(fake):
    made = fake.experiment()
    return [
        {"step": "prune-share.1", "stage": a.stage, "key": a.key, "reused": i % 2 == 0, "seconds": 4000.0}
        for i, a in enumerate(made.values())
    ]


TABLES = {
    "ls": (table.print_listing, listed),
    "closing": (table.print_closing, evaluations),
    "diff": (print_difference, compared),
    "sweeps": (sweeps.print_sweeps, known),
    "failures": (lambda rows, console: sweeps.print_failures(rows, set(), console), failures),
    "dry-run": (lambda rows, console: print_plan(rows, {p.folder: 5000.0 for p in rows}, console), planned),
    "audit": (checks.print_checks, audited),
    "data ls": (datasets.print_datasets, described),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
def test_a_table_fits_the_terminal_and_its_columns_stay_in_line(fake, lines_of, name, width):
    print_it, rows = TABLES[name]
    lines = lines_of(print_it, rows(fake), width=width)
    assert max(map(cell_len, lines)) <= width, lines
    assert len(lines[0].split()) > 2


@pytest.mark.parametrize("width", WIDTHS)
def test_the_stages_of_a_job_fit_the_terminal(fake, lines_of, width):
    lines = lines_of(print_stages, stages(fake), fake.store, width=width)
    assert max(map(cell_len, lines)) <= width
    assert lines[1].split()[0] == "prune-share.1"
    assert "90.00 (test)" in lines[6]
    assert "3 computed in 3h20" in lines[-1]


def whole(line, artifact):
    """Whether a line stays whole, so that it can be copied: a path, or a command."""
    return str(artifact.path) in line or line.startswith("repeat with")


@pytest.mark.parametrize("width", WIDTHS)
def test_show_fits_the_terminal_but_for_the_path(fake, lines_of, width):
    made = fake.experiment(dataset=WIDE, weights="random:0", select="test_oracle")
    for artifact in (*made.values(), fake.publish("train", {"dataset": {"name": LONG * 3}})):
        lines = lines_of(show.print_artifact, artifact, fake.store, width=width)
        assert max(cell_len(line) for line in lines if not whole(line, artifact)) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_a_benchmark_fits_the_terminal(fake, lines_of, width):
    for task in ("dtd", "svhn", "dsprites_orientation"):
        fake.experiment(dataset="vtab", task=task)
        fake.experiment(dataset="vtab", task=task, ratio=0.75, seed=1)
    vtab = benchmark.named("vtab1k")
    lines = lines_of(standings.print_benchmark, listing.rows(fake.store), vtab, width=width)
    assert max(map(cell_len, lines)) <= width


def test_columns_of_words_are_cut_or_where_every_word_counts_wrapped():
    columns = [
        Column("name", ["画像データセットの長い名前と続き", "digits"], words="cut"),
        Column("n", ["1", "22"], right=True),
        Column("why", ["a rather long reason that must be read whole", "short"], words="wrap"),
    ]
    assert [line.plain for line in layout.table(columns, 40)] == [
        "name                n  why",
        "画像データセット…   1  a rather long",
        "                       reason that must",
        "                       be read whole",
        "digits             22  short",
    ]
    assert layout.table(columns)[1].plain.endswith("a rather long reason that must be read whole")


def test_colours_are_readable_on_a_light_and_on_a_dark_ground():
    def luminance(rgb):
        linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    xterm = {"red": (205, 0, 0), "magenta": (205, 0, 205)}
    folder = Path(layout.__file__).parent
    used = {
        word
        for path in folder.glob("*.py")
        for word in re.findall(r'"(?:bold |dim )?(\w+)"', path.read_text())
        if word in ("red", "green", "yellow", "blue", "magenta", "cyan", "white", "black")
    }
    assert used <= set(xterm)
    for name in used:
        assert Color.parse(name).is_system_defined
        light = luminance(xterm[name])
        assert 1.05 / (light + 0.05) >= 3
        assert (light + 0.05) / 0.05 >= 3


def test_force_color_cuts_nothing_in_a_file(fake, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    file = io.StringIO()
    table.print_listing(listed(fake), layout.console(file))
    assert LONG in file.getvalue()
    assert "not shown at this width" not in file.getvalue()
