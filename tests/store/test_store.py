"""Publishing and reading artifacts: what goes in comes out, named and described."""

import hashlib
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from pear_cli.errors import MissingArtifact, StoreError
from pear_cli.store.artifact import Artifact
from pear_cli.store.canonical import SCHEMA, make_key
from pear_cli.store.draft import Draft
from pear_cli.store.store import Store
from pear_cli.system.environment import environment

KEY = make_key("train", 1, {"seed": 0}, {}, {"train": "a"}, "b")


@dataclass(frozen=True)
class Setting:
    rank: int = 8
    slots: tuple[str, ...] = ("attn.q",)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def publish(draft: Draft, value: float = 1.0) -> Artifact:
    draft.save_tensors("adapters", {"up": torch.full((2, 3), value)})
    draft.save_json("history", {"loss": [0.5, 0.25]})
    return draft.publish(
        inputs={}, config=Setting(), metrics={"accuracy": 0.9}, accounting={}, seconds=1, environment={}
    )


def put(store: Store, key: str = KEY) -> Artifact:
    with store.draft("train", key) as draft:
        return publish(draft)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_come_back_bit_for_bit_in_the_dtype_they_had(store: Store, dtype: torch.dtype) -> None:
    saved = {
        "matrix": torch.randn(3, 5).to(dtype),
        "strided": torch.randn(4, 6).to(dtype)[:, ::2],
        "scalar": torch.ones(()).to(dtype),
        "empty": torch.zeros(0, 4).to(dtype),
    }
    with store.draft("train", KEY) as draft:
        draft.save_tensors("adapters", saved, {"format": "pt"})
        artifact = draft.publish(inputs={}, config={}, metrics={}, accounting={}, seconds=0.5)
    loaded = artifact.tensors("adapters")
    assert loaded.keys() == saved.keys()
    for name, tensor in saved.items():
        assert loaded[name].dtype == dtype
        assert torch.equal(loaded[name], tensor)
    assert artifact.metadata("adapters") == {"format": "pt"}


def test_a_parameter_that_requires_gradients_is_saved_as_its_values(store: Store) -> None:
    with store.draft("train", KEY) as draft:
        draft.save_tensors("adapters.safetensors", {"up": torch.nn.Parameter(torch.ones(2))})
        artifact = draft.publish(inputs={}, config={}, metrics={}, accounting={}, seconds=0)
    assert torch.equal(artifact.tensors("adapters.safetensors")["up"], torch.ones(2))


def test_tensors_and_metadata_give_the_same_bytes_each_time(store: Store) -> None:
    with store.draft("train", KEY) as draft:
        tensors = {"b": torch.ones(3), "a": torch.zeros(2)}
        metadata = {name: f"{name} – é" for name in "qwertyuiop"}
        draft.save_tensors("one", tensors, metadata)
        draft.save_tensors("two", dict(reversed(tensors.items())), dict(reversed(metadata.items())))
        artifact = draft.publish(inputs={}, config={}, metrics={}, accounting={}, seconds=0)
    assert artifact.read("one.safetensors") == artifact.read("two.safetensors")
    assert artifact.metadata("one") == metadata
    assert torch.equal(artifact.tensors("one")["b"], tensors["b"])


def test_two_tensors_that_share_memory_are_refused(store: Store) -> None:
    shared = torch.ones(2)
    with store.draft("train", KEY) as draft, pytest.raises(RuntimeError, match="share memory"):
        draft.save_tensors("adapters", {"block.0": shared, "block.1": shared})


def test_the_manifest_has_the_fields_of_the_design_and_the_hashes_of_the_files(store: Store) -> None:
    artifact = put(store)
    manifest = json.loads((artifact.path / "manifest.json").read_text())
    assert set(manifest) == {
        "schema", "stage", "key", "inputs", "config", "metrics", "accounting", "files", "environment",
        "seconds", "created_at",
    }  # fmt: skip
    assert (manifest["schema"], manifest["stage"], manifest["key"]) == (SCHEMA, "train", KEY)
    assert manifest["config"]["slots"] == ["attn.q"]
    assert manifest["created_at"].endswith("+00:00")
    assert set(manifest["files"]) == {"adapters.safetensors", "history.json"}
    for name, entry in manifest["files"].items():
        content = (artifact.path / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert artifact.size == sum(entry["bytes"] for entry in manifest["files"].values())


def test_find_and_get_return_what_was_published(store: Store) -> None:
    assert store.find("train", KEY) is None
    with pytest.raises(MissingArtifact, match=f"train/{KEY}"):
        store.get("train", KEY)
    artifact = put(store)
    assert store.find("train", KEY) == store.get("train", KEY) == artifact
    assert store.get("train", KEY).manifest == artifact.manifest
    assert store.get("train", KEY).json("history") == {"loss": [0.5, 0.25]}
    assert list(store.artifacts()) == list(store.artifacts("train")) == [artifact]
    assert list(store.artifacts("score")) == []


def test_a_folder_without_a_manifest_is_not_an_artifact_and_is_replaced(store: Store) -> None:
    half = store.path("train", KEY)
    half.mkdir(parents=True)
    (half / "adapters.safetensors").write_bytes(b"half")
    assert store.find("train", KEY) is None
    put(store).verify()
    (aside,) = (store.root / ".quarantine").iterdir()
    assert (aside / "adapters.safetensors").read_bytes() == b"half"


def test_a_number_that_is_not_finite_is_refused_by_its_name_and_nothing_is_published(store: Store) -> None:
    with store.draft("train", KEY) as draft:
        with pytest.raises(StoreError, match=r"history\.loss\[1\] = nan"):
            draft.save_json("history", {"loss": [1.0, float("nan")]})
        with pytest.raises(StoreError, match=r"manifest\.metrics\.loss = inf"):
            draft.publish(inputs={}, config={}, metrics={"loss": float("inf")}, accounting={}, seconds=0)
    assert list(store.artifacts()) == []


@pytest.mark.parametrize("kind", ["folder", "link", "hidden"])
def test_only_plain_files_can_be_published(store: Store, kind: str) -> None:
    with store.draft("train", KEY) as draft:
        if kind == "folder":
            (draft.path / "folder").mkdir()
        elif kind == "link":
            (draft.path / "link").symlink_to("/etc/hostname")
        else:
            (draft.path / ".hidden").touch()
        with pytest.raises(StoreError, match="cannot be part of an artifact"):
            publish(draft)
    assert list(store.artifacts()) == []


@pytest.mark.parametrize(
    ("stage", "key"), [("train", "abc"), ("../train", KEY), ("train", f"../{KEY}"), ("", KEY)]
)
def test_names_that_could_leave_the_store_are_refused(store: Store, stage: str, key: str) -> None:
    for call in (store.find, store.get, store.path, store.workspace, store.lock_path):
        with pytest.raises(StoreError, match="names no artifact"):
            call(stage, key)


def test_two_thousand_artifacts_are_listed_in_half_a_second(store: Store) -> None:
    artifact = put(store)
    for number in range(2000):
        folder = store.path("train", f"{number:032x}")
        folder.mkdir()
        content = json.dumps(artifact.manifest | {"key": folder.name}, indent=1).encode()
        (folder / "manifest.json").write_bytes(content)
        (folder / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        assert len(list(store.artifacts())) == 2001
        best = min(best, time.process_time() - start)
    assert best < 0.5


def test_the_environment_names_versions_and_the_commit_of_the_launch_folder(tmp_path: Path) -> None:
    found = environment(device="cpu", threads=2, folder=tmp_path)
    assert {"torch", "timm", "safetensors", "python", "platform"} <= found.keys()
    assert (found["device"], found["threads"]) == ("cpu", 2)
    assert "git_commit" not in found
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    assert len(str(environment(folder=tmp_path)["git_commit"])) == 40
