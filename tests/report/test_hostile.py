"""Whatever a stranger writes into a manifest, a page, a table, a terminal and an error show it as text."""

import csv
import io
import json
import re

import pytest

from pear_cli.errors import LONGEST, DataError, printable
from pear_cli.report.analysis import difference, listing
from pear_cli.report.analysis.comparison import compare
from pear_cli.report.analysis.formats import FORMATS
from pear_cli.report.page.page import page
from pear_cli.report.terminal import diff, show, table
from pear_cli.store.artifact import SEAL, seal
from pear_cli.store.canonical import LARGEST
from pear_cli.store.draft import Draft

TEXTS = {
    "terminal": "\x1b[2J\x1b]0;title\x07\x9b31m",
    "lines": "a\nb\rc\u2028d\x0be",
    "bidi": "\u202egnp.exe\u2066\u200f",
    "formula": "=cmd|' /C calc'!A0",
    "markdown": "|[x](javascript:alert(1))<b>`\n\n# title",
    "latex": "\\input{/etc/passwd}%$&#_^~\n\\end{tabular}",
    "html": "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'{{7*7}}",
    "long": "x" * 20_000,
    "surrogate": "\ud83d",
}
NUMBERS = [LARGEST, -LARGEST, 0, -1, 2**63 - 1, 1e-300, True]


def poisoned(value, text, number):
    """The same structure with every text and name that is free replaced, and every number."""
    if isinstance(value, dict):
        extra = {text[:200]: text} if text is not None else {}
        return {name: poisoned(item, text, number) for name, item in value.items()} | extra
    if isinstance(value, list):
        return [poisoned(item, text, number) for item in value]
    if isinstance(value, str):
        return value if text is None else text
    return value if number is None or isinstance(value, bool | None) else number


@pytest.fixture
def poison(fake, monkeypatch):
    """Fills a store with one sound experiment and two in which all is hostile."""

    def fill(text=None, number=None):
        sound, publish = fake.experiment(), Draft.publish

        def hostile(draft, **manifest):
            for name in ("config", "metrics", "accounting", "environment"):
                manifest[name] = poisoned(manifest[name], text, number)
            if number is not None:
                manifest["seconds"] = number
            return publish(draft, **manifest)

        with monkeypatch.context() as patch:
            patch.setattr(Draft, "publish", hostile)
            made = [fake.experiment(seed=1), fake.experiment("mnist5k", ratio=0, rule="none", kind="none")]
        return [sound, *made]

    return fill


def written(fake, made, lines_of):
    """All that pear writes of these experiments, by what writes it."""
    rows = listing.rows(fake.store)
    lines = compare(rows)
    found = {name: write(lines) for name, write in FORMATS.items()}
    found["html"] = page(lines)
    found["ls"] = "\n".join(lines_of(table.print_listing, rows))
    found["ls on a terminal"] = "\n".join(lines_of(table.print_listing, rows, width=80))
    found["ls --json"] = "\n".join(listing.json_lines(rows))
    found["closing"] = "\n".join(
        lines_of(table.print_closing, [r for r in rows if r.artifact.stage == "eval"])
    )
    for step, artifact in made[-1].items():
        found[f"show {step}"] = "\n".join(lines_of(show.print_artifact, artifact, fake.store))
    between = difference.between(made[0]["eval"], made[-1]["eval"], fake.store)
    found["diff"] = "\n".join(lines_of(diff.print_difference, between))
    return found


@pytest.mark.parametrize("kind", TEXTS)
def test_every_text_of_a_stranger_is_text_in_every_output(fake, poison, lines_of, kind):
    found = written(fake, poison(TEXTS[kind]), lines_of)
    for name, text in found.items():
        if "json" not in name:
            assert all(c.isprintable() or c == "\n" for c in text), name
            assert "x" * (LONGEST + 1) not in text, name
    tables = list(csv.reader(io.StringIO(found["csv"])))
    assert len({len(row) for row in tables}) == 1
    assert not any(cell.startswith(("=", "+", "@")) for row in tables for cell in row)
    markdown = [row for row in found["md"].splitlines() if row.startswith("|")]
    assert len(markdown) == 2 + 3
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in markdown}) == 1
    assert not re.search(r"(?<!\\)[<\[]", found["md"])
    for line in found["latex"].splitlines():
        assert line.startswith("%") or r"\input{" not in line
    assert found["latex"].count(r"\end{tabular}") == 1 + sum(
        line.count(r"\end{tabular}") for line in found["latex"].splitlines() if line.startswith("%")
    )
    assert found["html"].count("<script") == 2
    assert "<img src=x" not in found["html"]
    for name in ("json", "ls --json"):
        assert [json.loads(line) for line in ([found[name]] if name == "json" else found[name].splitlines())]


@pytest.mark.parametrize("number", NUMBERS)
def test_every_number_of_a_stranger_is_survived_by_every_output(fake, poison, lines_of, number):
    found = written(fake, poison(number=number), lines_of)
    assert all(found.values())
    json.loads(found["json"], parse_constant=pytest.fail)


@pytest.mark.parametrize("text", ["1e308", "-1e101", "1e999", "NaN", "Infinity", "9" * 400])
def test_a_number_beyond_all_measures_makes_one_artifact_damaged_and_the_rest_is_listed(fake, text):
    broken, sound = fake.experiment(), fake.experiment(seed=1)
    manifest = broken["eval"].path / "manifest.json"
    content = manifest.read_text().replace('"accuracy": 0.9', f'"accuracy": {text}')
    manifest.write_text(content)
    (broken["eval"].path / SEAL).write_bytes(seal(content.encode()))
    told = {}
    lines = compare(listing.rows(fake.store, on_error=told.__setitem__))
    assert [line.first.artifact.key for line in lines] == [sound["eval"].key]
    assert list(told) == [broken["eval"].path]
    assert "digits" in FORMATS["md"](lines)


def test_an_error_prints_what_it_quotes_in_the_line_where_it_stands():
    error = DataError("no file a\nb\x1b[2J", "remove it")
    assert str(error) == "no file a\\nb\\x1b[2J\nremove it"


def test_a_long_text_is_shortened_and_a_sound_one_stays_as_it_is():
    assert printable("é中 a") == "é中 a"
    shown = printable("y" * 3_000_000)
    assert shown == "y" * LONGEST + "… (3000000 letters)"
