"""Artifacts, stores, images and names from strangers are data: read within limits, never followed or run."""

import dataclasses
import io
import json
import os

import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console

from pear_cli.backbone import backbones
from pear_cli.cli.options import complain
from pear_cli.config.node import node
from pear_cli.config.settings import Backbone
from pear_cli.data import transforms
from pear_cli.data.timm import Timm
from pear_cli.data.torchvision_parts import family
from pear_cli.errors import ConfigError, CorruptArtifact, DataError, StoreError
from pear_cli.launch.composing import composed
from pear_cli.model.description import Description
from pear_cli.model.load import load_model
from pear_cli.store import artifact as artifacts
from pear_cli.store import sweeps
from pear_cli.store.artifact import MANIFEST, SEAL, seal
from pear_cli.store.canonical import parse
from pear_cli.store.gc import collect
from pear_cli.store.removal import remove
from pear_cli.store.store import Store
from pear_cli.system import progress
from pear_cli.system.progress import stderr

KEY = "0" * 32
TINY = Backbone(
    name="vit_tiny_patch16_224",
    pretrained=False,
    weights=None,
    seed=0,
    drop_path=0.0,
    mean=None,
    std=None,
    args={"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2},
)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def made(store):
    """An artifact, and a function that forges its manifest."""
    with store.draft("train", KEY) as draft:
        draft.save_tensors("adapters", {"up": torch.ones(2)})
        return draft.publish(inputs={}, config={}, metrics={"accuracy": 0.5}, accounting={}, seconds=1)


def forge(made, old, new):
    text = (made.path / MANIFEST).read_text()
    assert old in text
    content = text.replace(old, new).encode()
    (made.path / MANIFEST).write_bytes(content)
    (made.path / SEAL).write_bytes(seal(content))


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "1" + "0" * 30, "9" * 5000])
def test_a_number_that_nothing_can_reckon_with_is_refused(number, store, made):
    forge(made, "0.5", number)
    with pytest.raises(CorruptArtifact, match=r"manifest.json is not valid JSON"):
        store.get("train", KEY)
    assert list(store.artifacts()) == []


def test_json_that_is_nested_too_deep_is_refused():
    with pytest.raises(ValueError, match="nested too deep"):
        parse("[" * 100_000)


@pytest.mark.parametrize("role", ["../../x", "a/b", "", "\\u001b[2J"])
def test_an_input_is_called_by_a_plain_name(role, store, made):
    forge(made, '"inputs": {}', f'"inputs": {{"{role}": "{KEY}"}}')
    with pytest.raises(CorruptArtifact, match="no sound inputs"):
        store.get("train", KEY)


def test_files_that_do_not_fit_into_memory_are_not_read(store, made, monkeypatch):
    os.truncate(made.path / MANIFEST, 1 << 40)  # sparse: it takes no space
    with pytest.raises(StoreError, match="too many to be read"):
        store.get("train", KEY)
    monkeypatch.setattr(artifacts, "memory", lambda: 10)
    with pytest.raises(StoreError, match="too many to be read"):
        made.read("adapters.safetensors")


@pytest.fixture
def outside(tmp_path):
    """A folder that is no store's, with a file in it."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "mine").write_text("mine")
    return folder


@pytest.mark.parametrize("place", [".quarantine", ".locks", "train"])
def test_nothing_is_deleted_behind_a_link(place, store, outside, made):
    if place == "train":
        (store.root / "train").rename(outside / "train")
        (store.root / "train").symlink_to(outside / "train")
    else:
        (store.root / place).exists() and (store.root / place).rmdir()
        (store.root / place).symlink_to(outside)
    for attempt in (
        lambda: collect(store),
        lambda: collect(store, older_than=0),
        lambda: remove(store, made.path),
    ):
        with pytest.raises(StoreError, match="is a link"):
            attempt()
    assert (outside / "mine").read_text() == "mine"
    assert place != "train" or (outside / "train" / KEY / MANIFEST).exists()


def test_nothing_is_written_behind_a_link(store, outside):
    lock = store.lock_path("train", KEY)
    lock.parent.mkdir(parents=True)
    lock.symlink_to(outside / "mine")
    with pytest.raises(StoreError, match="is a link"), store.lock("train", KEY):
        pass
    lock.unlink()
    work = store.work_path("train", KEY)
    work.parent.mkdir()
    work.symlink_to(outside)
    with pytest.raises(StoreError, match="is a link"):
        store.workspace("train", KEY)
    (store.root / "eval").symlink_to(outside)
    with pytest.raises(StoreError, match="is a link"), store.draft("eval", KEY):
        pass
    (store.root / ".sweeps").mkdir()
    (store.root / sweeps.BOOK).symlink_to(outside / "mine")
    started = "2026-01-01T00:00:00+00:00"
    with pytest.raises(StoreError, match="is a link"):
        sweeps.note(store.root, sweeps.Sweep("run", (), True, "/", "/x", None, None, started))
    assert [path.name for path in outside.iterdir()] == ["mine"]
    assert (outside / "mine").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["backbone"]["args"].update(depth=10**9), "out of range"),
        (lambda d: d["backbone"]["args"].update(sizes=[1, {"a": -(10**9)}]), "out of range"),
        (lambda d: d["method"].update(rank=65537), "out of range"),
        (lambda d: d.update(size=10**6), "out of range"),
        (lambda d: d["backbone"]["args"].update(checkpoint_path="/x.pth"), "is refused"),
        (lambda d: d["backbone"]["args"].update(pretrained_cfg={"file": "/x"}), "is refused"),
        (lambda d: d["backbone"]["args"].update(x="${oc.env:HOME}"), "interpolation"),
        (lambda d: d["method"].update(_target_="os.system"), "only classes of pear_cli"),
        (lambda d: d["method"].update(_target_="pear_cli.config.settings.Optim"), "is not a Method"),
        (lambda d: d["method"].update(_target_="pear_cli.no\0such.Thing"), "is not a Method"),
        (lambda d: d.update(backbone=None), "not the description"),
        (lambda d: d.pop("method"), "not the description"),
        (lambda d: d.update(crop_pct=-1.0), "out of range"),
    ],
)
def test_a_description_of_a_model_only_describes(change, says, finished):
    described = finished.made["adapt"].json("model")
    Description.from_json(described)
    change(described)
    with pytest.raises(CorruptArtifact, match=says):
        Description.from_json(described)


def test_stored_logits_of_another_shape_are_none_of_this_model(finished):
    from pear_cli.model import models

    model, description = load_model(finished.made["adapt"])
    with pytest.raises(CorruptArtifact, match=r"the stored logits are \(4, 1\), not \(4, 10\)"):
        models.check_probe(model, description, torch.zeros(4, 1))


@pytest.mark.parametrize("name", ["hf-hub:stranger/model", "local-dir:/tmp", "hf_hub:stranger/model"])
@pytest.mark.parametrize("pretrained", [True, False])
def test_a_backbone_comes_from_timm_alone(name, pretrained):
    config = dataclasses.replace(TINY, name=name, pretrained=pretrained)
    with pytest.raises(ConfigError, match=r"timm has no pretrained weights|no backbone"):
        backbones.build(config, 2)


def test_a_model_larger_than_the_memory_is_an_error_before_it_is_filled(monkeypatch):
    backbones.build(TINY, 2)
    for name, most in (("memory", lambda: 1000), ("MOST_PARAMETERS", 20)):
        with monkeypatch.context() as patch:
            patch.setattr(backbones, name, most)
            with pytest.raises(ConfigError, match="does not fit into the"):
                backbones.build(TINY, 2)
    huge = dataclasses.replace(TINY, args={**TINY.args, "embed_dim": 65536, "depth": 65536})
    with pytest.raises(ConfigError, match=r"timm cannot make|does not fit into the"):
        backbones.build(huge, 2)
    backbones.build(TINY, 2)  # the watch over it has ended


def test_arguments_that_timm_stumbles_over_are_an_error_in_words():
    with pytest.raises(ConfigError, match="timm cannot make"):
        backbones.build(dataclasses.replace(TINY, args={**TINY.args, "norm_layer": "os.system"}), 2)


def test_postscript_is_not_run_whatever_the_files_name(tmp_path):
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) print\n"
    (tmp_path / "photo.jpg").write_bytes(text)
    with pytest.raises(DataError, match="PostScript"):
        transforms.read(tmp_path / "photo.jpg")


def test_datasets_whose_files_are_pickles_are_refused():
    with pytest.raises(ConfigError, match="unpickles"):
        family("LSUN")
    preset = composed(["dataset=timm", "dataset.name=folder", "dataset.args.class_map=names.pkl"]).dataset
    with pytest.raises(ConfigError, match="is no pickle"):
        node(OmegaConf.merge(preset, {"train_split": "train800"}), Timm, "dataset")


def test_names_are_no_commands_to_a_terminal(capsys, monkeypatch):
    complain("show", "no tensor \x1b[2J\u202e\nsecond line")
    assert capsys.readouterr().err == "pear show: no tensor \\x1b[2J\\u202e\nsecond line\n"
    screen = io.StringIO()
    monkeypatch.setattr(
        stderr, "console", Console(file=screen, force_terminal=True, width=80, highlight=False)
    )
    monkeypatch.delenv("PEAR_QUIET", raising=False)
    with progress.ticker("[red]x[/blue]\x1b]0;y\x07", 2) as ticker:
        ticker.step("[/]")
    progress.say("[bold]\x07")
    assert "[red]x[/blue]\\x1b]0;y\\x07" in screen.getvalue()
    assert "[bold]\\x07" in screen.getvalue()


def test_a_header_of_an_exported_file_is_read_within_limits(tmp_path):
    from pear_cli.store import tensorfile

    for header in (b"{" + b'"a":{' * 50_000, b'{"a": NaN}', json.dumps([1]).encode()):
        with pytest.raises(ValueError, match="not a safetensors file"):
            tensorfile.split(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match="not a safetensors file"):
        tensorfile.split((1 << 60).to_bytes(8, "little") + b"{}")
