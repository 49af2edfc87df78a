import csv
import io
import json
import re
import shutil
import subprocess

import pytest

from pear_cli.report.analysis.comparison import compare
from pear_cli.report.analysis.formats import FORMATS, escape_latex
from pear_cli.report.analysis.listing import rows

HOSTILE = "</script><script>alert(1)</script>|`$\\%_&#{}~^\"'é中"


@pytest.fixture
def lines(fake):
    for seed, accuracy in enumerate((0.90, 0.92, 0.94)):
        fake.experiment(seed=seed, ratio=0, rule="none", kind="none", accuracy=accuracy)
        fake.experiment(seed=seed, accuracy=accuracy - 0.01)
    fake.experiment(HOSTILE)
    return compare(rows(fake.store))


def test_csv_has_full_numbers(lines):
    found = list(csv.DictReader(io.StringIO(FORMATS["csv"](lines))))
    shared = next(row for row in found if row["dataset"] == "digits" and float(row["prune_ratio"]) == 0.5)
    assert float(shared["accuracy"]) == pytest.approx(0.91)
    assert float(shared["difference"]) == pytest.approx(-0.01)
    assert shared["seeds"] == shared["difference_seeds"] == "3"
    assert shared["stored_bytes"] == "104448"


def test_csv_has_no_formulas(fake):
    fake.experiment("=cmd()")
    text = FORMATS["csv"](compare(rows(fake.store)))
    assert next(csv.DictReader(io.StringIO(text)))["dataset"] == "'=cmd()"


def test_json_has_the_accuracy_of_each_seed(lines):
    found = json.loads(FORMATS["json"](lines))
    dense = next(line for line in found if line["model"] == "dense")
    assert dense["accuracy_by_seed"] == {"0": 0.9, "1": 0.92, "2": 0.94}
    assert len(dense["artifacts"]) == 3


def test_markdown_keeps_its_columns_and_holds_no_markup_of_strangers(lines):
    table, _, notes = FORMATS["md"](lines).partition("\n\n")
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1
    assert not re.search(r"(?<!\\)<", table)
    assert "92.00 ± 4.97" in table
    assert "have one seed" in notes


def test_latex_escapes_everything():
    assert escape_latex("50% _a_ \\x {y} 中") == r"50\% \_a\_ \textbackslash{}x \{y\} U+4E2D"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_latex_table_compiles(lines, tmp_path):
    preamble = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs,textcomp}"
    text = f"{preamble}\\begin{{document}}\\footnotesize\n{FORMATS['latex'](lines)}\\end{{document}}"
    (tmp_path / "table.tex").write_text(text)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("form", ["md", "latex", "csv", "json"])
def test_random_weights_are_said_in_every_format(fake, form):
    fake.experiment(weights="random-" + "a" * 64)
    text = FORMATS[form](compare(rows(fake.store)))
    said = {"md": "\n- \\* the weights of the frozen backbone are random", "csv": "random_weights"}
    said |= {"latex": "{\\footnotesize * the weights of the frozen", "json": '"random_weights": true'}
    assert said[form] in text


def test_latex_has_the_notes_as_comments(fake):
    fake.experiment()
    fake.experiment(normalization="half")
    text = FORMATS["latex"](compare(rows(fake.store)))
    assert "% evaluations of digits are not comparable" in text
    assert "random" not in text
