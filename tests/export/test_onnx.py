"""ONNX files: onnxruntime gives the logits of the model, for any number of images."""

import importlib
import json

import numpy as np
import pytest
import torch

import pear_cli
from pear_cli.errors import ConfigError, MergeError
from tests.api.conftest import ARGS, train

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
exporting = importlib.import_module("pear_cli.export.onnx")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def task(backbone, tmp_path):
    """Saves a task of a method; returns its file, the bare weights and the model."""
    from safetensors.torch import save_file

    weights = tmp_path / "weights.safetensors"
    save_file(backbone(0).state_dict(), weights)

    def make(method, unit=None, **settings):
        model = backbone()
        adapted = pear_cli.attach(model, method, create_args=ARGS, **settings)
        batch = torch.randn(6, 3, 32, 32), torch.arange(6) % 3
        train(model, adapted, batch)
        if unit is not None:
            adapted.prune(adapted.score([batch], unit=unit), 0.5, scope="slot")
        file = adapted.save(tmp_path / "task.safetensors", classes=["ant", "bee", "cat"])
        return file, str(weights), model.eval()

    return make


@pytest.mark.parametrize(
    ("method", "unit", "settings"),
    [
        ("lora", "adapter", {"rank": 2}),
        ("adaptformer", None, {"rank": 2}),
        ("splora", "channel", {"rank": 2}),
    ],
)
def test_onnxruntime_gives_the_logits_of_any_batch(task, tmp_path, method, unit, settings):
    file, weights, model = task(method, unit, **settings)
    out = tmp_path / "model.onnx"
    (remark,) = exporting.export(file, out, weights=weights)
    assert float(remark.rpartition(" ")[2]) < 1e-4
    session = onnxruntime.InferenceSession(out)
    for count in (1, 3):
        x = torch.randn(count, 3, 32, 32)
        (found,) = session.run(["logits"], {"images": x.numpy()})
        np.testing.assert_allclose(found, model(x).detach().numpy(), atol=1e-4)
    texts = {n: json.loads(t) for n, t in session.get_modelmeta().custom_metadata_map.items()}
    assert texts["classes"] == ["ant", "bee", "cat"]
    assert texts["data"]["input_size"] == [3, 32, 32]
    assert texts["origin"] == ""


def test_a_wrong_file_never_appears(task, tmp_path, monkeypatch):
    file, weights, _ = task("linear")
    with pytest.raises(ConfigError, match=r"an exported file ends in \.onnx"):
        exporting.export(file, tmp_path / "model.safetensors", weights=weights)
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    with pytest.raises(MergeError, match="nothing was written"):
        exporting.export(file, tmp_path / "model.onnx", weights=weights)
    assert not list(tmp_path.glob("*.onnx"))


def test_what_is_not_installed_is_named_with_its_extra(pear, tmp_path, monkeypatch):
    from pear_cli.export import target

    monkeypatch.setattr(target, "find_spec", lambda name: None)
    for form, package in (("onnx", "onnx"), ("peft", "peft")):
        said = pear("export", "3f2a", "--format", form, "--out", str(tmp_path / "model.onnx"))
        assert said.code == 1
        assert f"needs the package {package}, which is not installed" in said.err
        assert f"pip install 'pear-cli[{package}]'" in said.err
