"""The service of the docs, asked by a client."""

import io
import runpy
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

import pear_cli
from tests.docs.test_docs import ROOT, blocks

pytest.importorskip("fastapi")


def test_the_example_of_a_service_answers_for_each_task(tmp_path, monkeypatch):
    (block,) = [b for b in blocks(ROOT / "docs/howto/tasks.md") if b.title == "serve.py"]
    assert len(block.text.splitlines()) <= 32
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    monkeypatch.chdir(tmp_path)
    Path("tasks").mkdir()
    made = timm.create_model
    for name, classes in (("birds", ["owl", "tit"]), ("cars", ["bus", "van", "cab"])):
        torch.manual_seed(0)
        model = made("vit_tiny_patch16_224", num_classes=0, **small)
        model.reset_classifier(len(classes))
        pear_cli.attach(model, "lora", rank=2).save(f"tasks/{name}.safetensors", classes=classes)

    def create(model_name, pretrained):
        assert pretrained
        torch.manual_seed(0)
        return made(model_name, num_classes=0, **small)

    monkeypatch.setattr(timm, "create_model", create)
    Path("serve.py").write_text(block.text)
    app = runpy.run_path("serve.py")["app"]
    from fastapi.testclient import TestClient

    client = TestClient(app)
    assert client.get("/tasks").json() == {"birds": ["owl", "tit"], "cars": ["bus", "van", "cab"]}
    photo = io.BytesIO()
    Image.effect_noise((40, 30), 50).save(photo, "png")
    answer = client.post("/tasks/cars", files={"file": photo.getvalue()})
    assert answer.status_code == 200
    assert list(answer.json()) == ["bus", "van", "cab"]
    assert sum(answer.json().values()) == pytest.approx(1)
    assert client.post("/tasks/dogs", files={"file": photo.getvalue()}).status_code == 404
