"""A stored model as a plain timm model."""

import shutil
import subprocess
import sys

import pytest
import torch

import pear_cli
from pear_cli import api
from pear_cli import model as models
from pear_cli.adapters.adapted import Adaptation
from pear_cli.data.bundled import Bundled
from pear_cli.engine import Batches
from pear_cli.errors import ConfigError, CorruptArtifact, MissingArtifact, StoreError


def logits_of_the_test_set(model, dataset):
    images = dataset.load("test", 16)
    statistics = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    with torch.inference_mode():
        return torch.cat(
            [model(x) for x, _ in Batches(images, statistics, torch.device("cpu")).in_order(256)]
        )


def test_importing_pear_imports_no_torch():
    program = "import sys, pear_cli; dir(pear_cli); print('torch' in sys.modules, 'load' in dir(pear_cli))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="lod"):
        _ = pear_cli.lod


@pytest.mark.parametrize("step", ["adapt", "eval"])
def test_a_loaded_model_repeats_the_logits_of_the_evaluation(finished, step):
    model = pear_cli.load(finished.made[step].path)
    predictions = finished.made["eval"].tensors("predictions")["logits"]
    torch.testing.assert_close(logits_of_the_test_set(model, finished.experiment.dataset), predictions)
    assert not model.training


def test_a_key_or_a_prefix_of_one_loads_with_its_store(finished):
    key = finished.made["eval"].key
    for store in (finished.store, finished.store.root, str(finished.store.root)):
        assert pear_cli.load(key[:10], store=store).num_classes == 10
    with pytest.raises(MissingArtifact, match="needs its store"):
        pear_cli.load(key)


def test_owners_and_knowledge_are_attached(finished):
    adaptation = models.adaptation(pear_cli.load(finished.made["eval"].path))
    assert isinstance(adaptation, Adaptation)
    described = finished.made["adapt"].json("model")["owners"]
    assert adaptation.owners() == described
    pruned = {site for site, owner in described.items() if owner != site}
    assert pruned
    assert {p.site.name for p in adaptation.each() if p.knowledge is not None} == pruned


def test_a_dense_model_and_a_checkpoint_load_too(finished):
    for step in ("train", "checkpoint"):
        model = pear_cli.load(finished.made[step].path)
        stored = finished.made[step].tensors("probe")["logits"]
        torch.testing.assert_close(models.probe(model, 16), stored)


def test_timm_learns_from_the_model_how_images_are_prepared(finished):
    data = pytest.importorskip("timm.data")
    model = pear_cli.load(finished.made["eval"].path)
    config = data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 16, 16)
    assert config["mean"] == config["std"] == (0.5, 0.5, 0.5)
    assert (config["interpolation"], config["crop_pct"], config["crop_mode"]) == ("bicubic", 1.0, "squash")
    assert model.pretrained_cfg["label_names"] == tuple("0123456789")


def test_timms_transform_prepares_an_image_as_training_did(finished):
    data = pytest.importorskip("timm.data")
    from PIL import Image

    from pear_cli.data.pictures import resize

    model = pear_cli.load(finished.made["eval"].path)
    noise = torch.randint(0, 256, (40, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray(noise.numpy())
    transformed = data.create_transform(**data.resolve_model_data_config(model))(picture)
    ours = torch.from_numpy(resize(picture, 16)).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(transformed, ours)


@pytest.mark.parametrize("step", ["score", "prune-share"])
def test_an_artifact_without_a_model_is_refused(finished, step):
    with pytest.raises(StoreError, match="holds no model"):
        pear_cli.load(finished.made[step].path)


def test_altered_weights_are_refused(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.made["adapt"].path, copy)
    content = bytearray((copy / "adapters.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "adapters.safetensors").write_bytes(content)
    with pytest.raises(CorruptArtifact, match="adapters"):
        pear_cli.load(copy)


def test_other_frozen_weights_are_refused(finished, tmp_path):
    from safetensors.torch import save_file

    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, other)
    with pytest.raises(ConfigError, match="frozen weights"):
        pear_cli.load(finished.made["adapt"].path, weights=other)


def test_evaluating_a_stored_model_repeats_the_metrics(finished):
    made = finished.made["eval"]
    again = api.evaluate(made.path, finished.experiment.dataset, finished.experiment.runtime)
    assert again == {name: made.manifest["metrics"][name] for name in again}
    assert again["images"] == 797


def test_a_dataset_with_other_classes_is_refused(finished):
    class Letters(Bundled):
        def classes(self):
            return tuple("abcdefghij")

    with pytest.raises(ConfigError, match="other classes"):
        api.evaluate(finished.made["eval"].path, Letters(name="digits"), finished.experiment.runtime)


@pytest.mark.parametrize(
    "description",
    [
        {"classes": ["${oc.env:HOME}"]},
        {"method": {"${oc.env:HOME}": 1}},
        {"backbone": {"args": {"checkpoint_path": "/etc/passwd"}}},
        {"backbone": {"args": {"pretrained_cfg_overlay": {}}}},
    ],
)
def test_a_description_can_only_state_numbers_and_names(finished, description):
    value = finished.made["adapt"].json("model")
    if "backbone" in description:
        description = {"backbone": value["backbone"] | description["backbone"]}
    with pytest.raises(CorruptArtifact, match="refused"):
        models.Description.from_json(value | description)
