"""What the tests of datasets have in common: a cache of their own, pictures, and what is said on stderr."""

import pytest

from pear_cli.store import cache
from pear_cli.system import progress


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Empty, and a file that was changed just now is remembered like any other."""
    monkeypatch.setenv("PEAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SETTLED_NS", 0)


@pytest.fixture
def said(monkeypatch):
    """The lines on stderr."""
    lines = []
    monkeypatch.setattr(progress, "say", lines.append)
    return lines
