"""The figures of README and docs are those of docs/results."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RESULTS = sorted((ROOT / "docs" / "results").glob("*.json"))


def test_the_pages_have_the_figures_of_the_records():
    line = [sys.executable, str(ROOT / "scripts" / "tables" / "render.py"), "--check"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"out of date: {done.stdout}{done.stderr}; python scripts/tables/render.py"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_a_record_says_with_what_it_was_measured(path):
    records = json.loads(path.read_text())
    cells = [record["cell"] for record in records]
    assert cells
    for record in records:
        assert {"commit", "versions", "processor", "threads"} <= record.keys(), record["cell"]
        assert cells.count(record["cell"]) == 1
        if "accuracy" in record:
            assert 0 <= record["accuracy"] <= 1
            assert record["data"]


@pytest.mark.parametrize("name", ["quickstart", "methods", "spa", "learning_rates"])
def test_published_cells_are_current(name, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "tables"))
    import cells

    stale = [record["cell"] for record in cells.Cells(name).records if not cells.is_current(record)]
    assert not stale
