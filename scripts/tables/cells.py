"""Figures as data: one record a finished cell of a table, in docs/results/.

A cell is what one experiment came to. Its record says what was run, what came out, and with what: commit,
versions, processor, content of the data, versions of the stages. A cell that is there and current is not
measured again; it is current while the stages that made it have the same versions and the data the same
content. Whatever is measured starts with an empty cache and an empty store.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from threading import Lock
from typing import Any

from pear_cli.config.node import node
from pear_cli.config.presets import presets_of
from pear_cli.data.dataset import Dataset
from pear_cli.experiment.step import VERSIONS

Record = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
COSTS = (
    "trainable_params",
    "trainable_params_without_head",
    "stored_params",
    "stored_bytes",
    "macs_per_image",
)
DIGITS = 16  # of a hash that a record keeps


class Cells:
    """The cells of one table, written after each new one.

    Args:
        table: its name, that of a file in docs/results.
    """

    def __init__(self, table: str) -> None:
        self.path = RESULTS / f"{table}.json"
        self.records: list[Record] = json.loads(self.path.read_text()) if self.path.exists() else []
        self._lock = Lock()

    def find(self, cell: Mapping[str, Any]) -> Record | None:
        """The record of a cell, current or not."""
        return next((record for record in self.records if record["cell"] == cell), None)

    def is_current(self, cell: Mapping[str, Any], words: Sequence[str]) -> bool:
        """Whether a cell was measured with these words, by the stages and on the data of today."""
        record = self.find(cell)
        return record is not None and record["words"] == list(words) and is_current(record)

    def add(self, records: Sequence[Record]) -> None:
        """Put records in place of those of the same cells, and write the file."""
        with self._lock:
            new = [record["cell"] for record in records]
            self.records = [record for record in self.records if record["cell"] not in new] + list(records)
            self.records.sort(key=lambda record: list(record["cell"].values()))
            self.path.parent.mkdir(exist_ok=True)
            draft = self.path.with_suffix(".tmp")
            draft.write_text("[\n" + ",\n".join(map(json.dumps, self.records)) + "\n]\n")
            draft.replace(self.path)


def is_current(record: Record) -> bool:
    """Whether the stages that made a cell and the data that they read are those of today."""
    same = all(VERSIONS[stage] == version for stage, version in record["stages"].items())
    task = record["cell"]["task"]
    return same and all(content(task, split) == found for split, found in record["data"].items())


@cache
def content(task: str, split: str) -> str:
    """The first digits of the fingerprint of a split of a bundled task."""
    return bundled(task).fingerprint(split)[:DIGITS]


def bundled(task: str) -> Dataset:
    """A bundled task as its preset has it."""
    settings = {**presets_of("dataset")[task], "train_split": "train800val200"}
    return node(settings, Dataset, "dataset")  # type: ignore[type-abstract]


@contextmanager
def fresh() -> Iterator[Path]:
    """An empty cache for all that is run inside; the path of an empty store."""
    with tempfile.TemporaryDirectory(prefix="pear-figures-") as folder:
        before = os.environ.get("PEAR_CACHE")
        os.environ["PEAR_CACHE"] = str(Path(folder, "cache"))
        try:
            yield Path(folder, "store")
        finally:
            if before is None:
                del os.environ["PEAR_CACHE"]
            else:
                os.environ["PEAR_CACHE"] = before


def pear(command: str, *words: str) -> list[Record]:
    """The records of a sweep, in its order."""
    line = [sys.executable, "-m", "pear_cli", command, "-m", "--json", *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{' '.join(line[2:])}\n{done.stderr}")
    print(command, *words, file=sys.stderr, flush=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def record(cell: Mapping[str, Any], words: Sequence[str], found: Record) -> Record:
    """The record of a cell, from what a job printed with --json.

    Args:
        cell: what it is called: `task` and what else the table tells apart.
        words: the overrides that made it, without the place of the store.
        found: the record of the job; its artifact is still there.
    """
    place = Path(found["artifact"])
    manifests = {place.name: json.loads((place / "manifest.json").read_text())}
    follow = list(manifests.values())
    while follow:
        for role, key in follow.pop()["inputs"].items():
            stage = {"adapt": "train", "scored": "score", "pruned": "prune-share"}.get(role, role)
            if key not in manifests:
                path = place.parents[1] / stage / key / "manifest.json"
                manifests[key] = json.loads(path.read_text())
                follow.append(manifests[key])
    environment = manifests[place.name]["environment"]
    data = {
        split: fingerprint[:DIGITS]
        for manifest in manifests.values()
        for split, fingerprint in manifest["environment"].get("data", {}).items()
    }
    stages = {manifest["stage"] for manifest in manifests.values()}
    chosen = next((m["metrics"] for m in manifests.values() if m["stage"] == "prune-share"), {})
    return {
        "cell": dict(cell),
        "words": list(words),
        "accuracy": found["metrics"]["accuracy"],
        "loss": found["metrics"]["loss"],
        "images": found["metrics"]["images"],
        **{name: found["accounting"][name] for name in COSTS if name in found["accounting"]},
        **{name: chosen[name] for name in ("pruned", "units") if name in chosen},
        "seconds": round(sum(manifest["seconds"] for manifest in manifests.values()), 1),
        "stages": {stage: VERSIONS[stage] for stage in sorted(stages)},
        "data": dict(sorted(data.items())),
        **made_with(environment["threads"]),
    }


def git(*words: str) -> str:
    """What a git command says of this clone; nothing where it is none."""
    found = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def made_with(threads: int) -> Record:
    """Commit, versions, processor and threads, for a record; other results do not make a commit dirty."""
    commit = git("describe", "--always", "--abbrev=12", "--exclude=*") or "unknown"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/results")
    return {
        "commit": f"{commit}-dirty" if changed else commit,
        "versions": {name: metadata.version(name) for name in ("torch", "timm")}
        | {"python": platform.python_version()},
        "processor": processor(),
        "threads": threads,
    }


@cache
def processor() -> str:
    """What tells apart processors that may round differently: `AMD EPYC 7B13 (family 25, model 1)`."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = {
        name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))
    }
    name = found.get("model name", platform.machine())
    return f"{name} (family {found.get('cpu family', '?')}, model {found.get('model', '?')})"
