"""Artifacts that are damaged, newer or made by strangers: refused in words, never followed."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from pear_cli.errors import CorruptArtifact, MissingArtifact, OldSchema, StoreError
from pear_cli.store.artifact import Artifact
from pear_cli.store.gc import collect
from pear_cli.store.store import Store

KEY = "0123456789abcdef" * 2


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    with Store(tmp_path / "store").draft("train", KEY) as draft:
        draft.save_tensors("adapters", {"up": torch.ones(2, 2)})
        draft.save_json("history", [1, 2])
        return draft.publish(inputs={}, config={"a": 1}, metrics={"accuracy": 0.91}, accounting={}, seconds=1)


def rewrite(artifact: Artifact, **changes: Any) -> None:
    """Write a manifest as a stranger could, with a hash that vouches for it."""
    content = json.dumps(artifact.manifest | changes).encode()
    (artifact.path / "manifest.json").write_bytes(content)
    (artifact.path / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")


def test_a_flipped_bit_anywhere_in_any_file_is_noticed(artifact: Artifact) -> None:
    for path in sorted(artifact.path.iterdir()):
        sound = path.read_bytes()
        for index in range(0, len(sound), 3):
            path.write_bytes(sound[:index] + bytes([sound[index] ^ 1 << index // 3 % 8]) + sound[index + 1 :])
            with pytest.raises(StoreError):
                Artifact.at(artifact.path).verify()
        path.write_bytes(sound)
    Artifact.at(artifact.path).verify()


@pytest.mark.parametrize("name", ["adapters.safetensors", "history.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "grow", "delete"])
def test_a_damaged_file_is_named_with_the_remedy(artifact: Artifact, name: str, damage: str) -> None:
    path = artifact.path / name
    sound = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes({"flip": sound[:-1] + b"~", "truncate": sound[:-1], "grow": sound + b" "}[damage])
    fresh = Artifact.at(artifact.path)
    read = fresh.tensors if name == "adapters.safetensors" else fresh.json
    with pytest.raises(CorruptArtifact) as caught:
        read(name)
    assert name in str(caught.value)
    assert f"pear rm {artifact.path}" in str(caught.value)
    with pytest.raises(CorruptArtifact, match=name):
        fresh.verify()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"schema": 2}', b"\xff", b"[" * 100_000])
def test_a_manifest_that_is_no_manifest_is_a_corrupt_artifact(artifact: Artifact, content: bytes) -> None:
    (artifact.path / "manifest.json").write_bytes(content)
    store = Store(artifact.path.parent.parent)
    with pytest.raises(CorruptArtifact, match=f"{artifact.path}.*pear rm"):
        store.find("train", KEY)
    told = list[Path]()
    assert list(store.artifacts(on_error=lambda path, error: told.append(path))) == []
    assert told == [artifact.path]


def test_a_manifest_of_a_newer_pear_names_both_schemas_and_the_remedy(artifact: Artifact) -> None:
    rewrite(artifact, schema=7)
    with pytest.raises(StoreError, match=r"schema 7.* up to 2; upgrade pear") as caught:
        Artifact.at(artifact.path)
    assert not isinstance(caught.value, CorruptArtifact)


def test_a_manifest_of_an_older_pear_is_told_apart_from_damage(artifact: Artifact) -> None:
    rewrite(artifact, schema=1)
    with pytest.raises(OldSchema, match=r"schema 1, this pear reads 2; run its experiment again"):
        Artifact.at(artifact.path)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "..", ".", "a/b", "a\\b", "", "a\0b", "-rf", ".hidden", "x\n", "x" * 300]
)
def test_a_file_name_that_could_leave_the_folder_is_refused(artifact: Artifact, name: str) -> None:
    (artifact.path.parent / "x").write_bytes(b"secret")
    rewrite(artifact, files={name: {"sha256": hashlib.sha256(b"secret").hexdigest(), "bytes": 6}})
    with pytest.raises(CorruptArtifact, match="has no sound file"):
        Artifact.at(artifact.path)


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "../../x"}, {"stage": "../train"}, {"inputs": {"dense": "../x"}}, {"inputs": {"dense": 3}},
        {"files": {"a": {"sha256": "0" * 64, "bytes": -1.5}}}, {"files": {"a": {"sha256": "zz", "bytes": 1}}},
        {"files": {"a": None}}, {"files": []}, {"created_at": "yesterday"}, {"created_at": "2024-01-01"},
        {"schema": "1"}, {"schema": True}, {"schema": 0}, {"metrics": None}, {"seconds": "1"},
    ],
)  # fmt: skip
def test_a_manifest_with_an_unsound_field_is_refused(artifact: Artifact, changes: dict[str, Any]) -> None:
    rewrite(artifact, **changes)
    with pytest.raises(CorruptArtifact):
        Artifact.at(artifact.path)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_link_a_pipe_or_a_folder_is_never_read_as_a_file(
    artifact: Artifact, kind: str, tmp_path: Path
) -> None:
    path = artifact.path / "history.json"
    content = path.read_bytes()
    path.unlink()
    if kind == "link":
        outside = tmp_path / "outside.json"
        outside.write_bytes(content)
        path.symlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(CorruptArtifact, match=r"history\.json"):
        artifact.json("history")


def test_a_manifest_that_is_a_link_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    outside = artifact.path.joinpath("manifest.json").rename(tmp_path / "manifest.json")
    artifact.path.joinpath("manifest.json").symlink_to(outside)
    with pytest.raises(CorruptArtifact, match=r"manifest\.json"):
        Artifact.at(artifact.path)


def test_files_that_have_the_right_hash_but_the_wrong_format_are_refused(artifact: Artifact) -> None:
    for name, read in (("adapters.safetensors", artifact.tensors), ("history.json", artifact.json)):
        for content in (b"", b"\x80\x04.", b"\xff" * 64):
            (artifact.path / name).write_bytes(content)
            entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            artifact.manifest["files"][name] = entry
            artifact._checked.clear()
            with pytest.raises(CorruptArtifact, match=name):
                read(name)


def test_a_manifest_under_another_key_is_refused_by_the_store_but_has_its_path(
    artifact: Artifact,
) -> None:
    store, other = Store(artifact.path.parent.parent), "f" * 32
    artifact.path.rename(artifact.path.with_name(other))
    with pytest.raises(CorruptArtifact, match=f"is that of train/{KEY}"):
        store.find("train", other)
    assert Artifact.at(store.path("train", other)).key == KEY


def test_a_file_is_hashed_once_by_each_object(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = list[int]()
    sha256 = hashlib.sha256

    def counting(content: bytes) -> Any:
        hashed.append(len(content))
        return sha256(content)

    monkeypatch.setattr(hashlib, "sha256", counting)
    for _ in range(3):
        artifact.json("history")
    assert len(hashed) == 1


def test_an_unknown_file_name_is_an_error_with_the_near_miss(artifact: Artifact) -> None:
    with pytest.raises(MissingArtifact, match=r'did you mean "history\.json"'):
        artifact.json("histori")
    with pytest.raises(MissingArtifact, match=r"files: adapters\.safetensors, history\.json"):
        artifact.read("../history.json")


@pytest.mark.parametrize("lost", ["manifest.sha256", "manifest.json"])
def test_a_manifest_and_its_seal_are_damaged_without_each_other_and_set_aside_by_gc(
    artifact: Artifact, lost: str
) -> None:
    store = Store(artifact.path.parent.parent)
    (artifact.path / lost).unlink()
    with pytest.raises(CorruptArtifact, match=f"{lost}.* is missing"):
        store.get("train", KEY)
    unread: dict[Path, StoreError] = {}
    assert list(store.artifacts(on_error=unread.__setitem__)) == []
    assert list(unread) == [store.locate(KEY)] == [artifact.path]
    assert [item.kind for item in collect(store, verify=True).items] == ["corrupt"]
    assert not artifact.path.exists()
