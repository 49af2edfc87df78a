"""Folders of PEFT adapters: PEFT loads them into a bare timm model, and gives the same logits."""

import copy
import json

import pytest
import torch
from torch import nn

import pear_cli
from pear_cli.errors import ConfigError, MergeError
from pear_cli.model import models
from tests.api.conftest import ARGS

exporting = pytest.importorskip("pear_cli.export.peft")
NAMES = ["ant", "bee", "cat"]
WHOLE = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]


@pytest.fixture
def saved(backbone, tmp_path):
    """Saves a task of a method, and the bare weights; returns both files and the model."""
    from safetensors.torch import save_file

    weights = tmp_path / "weights.safetensors"
    save_file(backbone(0).state_dict(), weights)

    def save(method, ratio=0.0, unit="adapter", prune=None, **settings):
        model = backbone()
        adapted = pear_cli.attach(model, method, create_args=ARGS, **settings)
        generator = torch.Generator().manual_seed(1)
        for parameter in adapted.parameters():
            parameter.data.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        if ratio:
            batch = torch.randn(6, 3, 32, 32, generator=generator), torch.arange(6) % 3
            adapted.prune(adapted.score([batch], unit=unit), ratio, **(prune or {}))
        file = adapted.save(tmp_path / "task.safetensors", classes=NAMES, overwrite=True)
        return file, weights, model.eval()

    return save


@pytest.mark.parametrize(
    ("kind", "method", "settings", "ratio", "prune"),
    [
        ("LORA", "lora", {"rank": 2}, 0, {}),
        ("LORA", "lora", {"rank": 3, "slots": WHOLE, "dropout_at": "input"}, 0, {}),
        ("LORA", "lora", {"rank": 2}, 0.5, {"knowledge": {"kind": "int8", "beta": 0.5}}),
        ("LORA", "lora", {"rank": 2}, 0.75, {"share": "none", "knowledge": "none"}),
        ("LORA", "lily", {"rank": 2, "monoscale": True, "slots": ["attn.proj"]}, 0, {}),
        ("LORA", "neat", {"rank": 2}, 0.5, {"knowledge": "none"}),
        ("PEANUT", "neat", {"rank": 2, "slots": WHOLE, "depth": 4}, 0, {}),
        ("PEANUT", "neat", {"rank": 2, "slots": WHOLE}, 0.5, {"share": "nearest", "knowledge": "none"}),
        ("LILY", "lily", {"rank": 2, "slots": WHOLE}, 0, {}),
        ("LILY", "lily", {"rank": 2, "slots": ["attn.proj", "mlp.fc2"]}, 0.5, {"knowledge": "none"}),
    ],
)
def test_peft_loads_the_folder_and_gives_the_same_logits(
    saved,
    backbone,
    tmp_path,
    kind,
    method,
    settings,
    ratio,
    prune,
):
    import peft

    file, weights, model = saved(method, ratio, prune=prune, **settings)
    remarks = exporting.export(file, tmp_path / "folder", weights=str(weights))
    assert any("bytes" in remark for remark in remarks)
    config = json.loads((tmp_path / "folder" / "adapter_config.json").read_text())
    assert config["peft_type"] == kind
    about = json.loads((tmp_path / "folder" / "pear.json").read_text())
    assert about["classes"] == NAMES
    assert about["data"]["input_size"] == [3, 32, 32]
    x = torch.randn(5, 3, 32, 32)
    theirs = peft.PeftModel.from_pretrained(backbone(3), str(tmp_path / "folder")).eval()
    torch.testing.assert_close(theirs(x), model(x), atol=1e-5, rtol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_what_stacking_and_sharing_cost_is_said(saved, tmp_path):
    file, weights, _ = saved("lora", 0.5, prune={"knowledge": "none"}, rank=2)
    remarks = exporting.export(file, tmp_path / "folder", weights=str(weights))
    assert "PEFT has one LoRA a layer: 4 layers stack several, blocks.0.attn.qkv to rank 4" in remarks
    assert any("adapters that are shared stand at each" in remark for remark in remarks)


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        (
            "adaptformer",
            {"rank": 2},
            r"PEFT has no type for the adapter of blocks.0.mlp: there is an activation",
        ),
        ("bitfit", {}, "BitFit has no adapters that PEFT could hold"),
        ("linear", {}, "LinearProbe has no adapters that PEFT could hold"),
        ("lily", {"rank": 2}, "PEFT has no type for the adapter"),
    ],
)
def test_what_peft_has_not_is_refused_and_nothing_is_written(saved, tmp_path, method, settings, said):
    file, weights, _ = saved(method, **settings)
    with pytest.raises(ConfigError, match=said):
        exporting.export(file, tmp_path / "folder", weights=str(weights))
    assert not (tmp_path / "folder").exists()


def test_a_folder_that_is_there_stays_unless_it_is_given_up(saved, tmp_path, monkeypatch):
    file, weights, _ = saved("lora", rank=2)
    out = tmp_path / "folder"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    with pytest.raises(ConfigError, match="is there already; choose another name, or --force"):
        exporting.export(file, out, weights=str(weights))
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    with pytest.raises(MergeError, match="nothing was written"):
        exporting.export(file, out, weights=str(weights), force=True)
    assert (out / "mine.txt").read_text() == "kept"
    monkeypatch.undo()
    exporting.export(file, out, weights=str(weights), force=True)
    assert not (out / "mine.txt").exists()
    assert (out / "adapter_model.safetensors").exists()


def test_the_command_says_what_it_wrote(finished, pear, tmp_path):
    said = pear("export", str(finished.made["eval"].path), "--format", "peft", "--out", str(tmp_path / "p"))
    assert said.code == 0, said.err
    assert said.out.strip() == str(tmp_path / "p")
    assert "max |Δlogit|" in said.err
    both = ("--format", "peft", "--merge", "--out", str(tmp_path / "q"))
    assert pear("export", str(finished.made["eval"].path), *both).code == 2


def test_models_are_left_as_they_were(saved, tmp_path):
    file, weights, _ = saved("lora", rank=2)
    model = pear_cli.load(file, weights=weights)
    before = copy.deepcopy(models.tensors(model))
    exporting.export(file, tmp_path / "folder", weights=str(weights))
    assert all(torch.equal(t, before[n]) for n, t in models.tensors(model).items())
    assert isinstance(model, nn.Module)
