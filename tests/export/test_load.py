"""A stored model as a plain timm model."""

import dataclasses
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from timm import data

import pear_cli
from pear_cli.adapters.adaptation import Adaptation
from pear_cli.config.choices import Augment, Interpolation, Metric, Resize
from pear_cli.data.bundled import Bundled
from pear_cli.data.dataset import Normalization
from pear_cli.data.loading import load
from pear_cli.errors import ConfigError, CorruptArtifact, MissingArtifact, StoreError
from pear_cli.export import load as api
from pear_cli.model import models
from pear_cli.stages.perform import perform
from pear_cli.store.store import Store
from pear_cli.training.batches import Batches


def logits_of_the_test_set(model, dataset):
    images = load(dataset, "test", dataset.preparation(16))
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
    model = pear_cli.load(finished.made["eval"].path)
    config = data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 16, 16)
    assert config["mean"] == config["std"] == (0.5, 0.5, 0.5)
    assert (config["interpolation"], config["crop_pct"], config["crop_mode"]) == ("bicubic", 1.0, "squash")
    assert model.pretrained_cfg["label_names"] == tuple("0123456789")


def test_timms_transform_prepares_an_image_as_training_did(finished):
    from pear_cli.data.preparation import Preparation

    model = pear_cli.load(finished.made["eval"].path)
    noise = torch.randint(0, 256, (40, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray(noise.numpy())
    transformed = data.create_transform(**data.resolve_model_data_config(model))(picture)
    ours = torch.from_numpy(Preparation(16)(picture)).permute(2, 0, 1) / 127.5 - 1
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


@pytest.fixture(scope="module")
def cropped(finished, tmp_path_factory):
    """A model that was trained on cropped, unnormalised images, and its experiment."""
    dataset = Bundled(
        "digits",
        resize=Resize.crop,
        crop_pct=0.5,
        interpolation=Interpolation.bilinear,
        normalization=Normalization.none,
        augment=Augment.flip_crop,
        metric=Metric.mean_per_class_accuracy,
    )
    experiment = dataclasses.replace(finished.experiment, dataset=dataset)
    return experiment, perform("train", experiment, Store(tmp_path_factory.mktemp("cropped"))).artifact


def test_a_model_says_how_its_images_are_cropped_and_interpolated(cropped):
    model, description = api.load_described(cropped[1].path)
    stated = data.resolve_model_data_config(model)
    assert (stated["crop_pct"], stated["crop_mode"], stated["interpolation"]) == (0.5, "center", "bilinear")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8))
    theirs = data.create_transform(**stated)(picture)
    ours = torch.from_numpy(description.preparation(picture)).permute(2, 0, 1) / 255
    torch.testing.assert_close(theirs, ours)


def test_evaluation_prepares_images_as_in_training_and_refuses_other_wishes(cropped):
    experiment, artifact = cropped
    as_trained = api.evaluate(artifact.path, experiment.dataset, experiment.runtime)
    assert api.evaluate(artifact.path, Bundled("digits"), experiment.runtime) == as_trained
    for wish, message in (
        ({"normalization": Normalization.half}, r"trained with dataset\.normalization=none, not half"),
        ({"resize": Resize.crop, "crop_pct": 0.9}, r"dataset\.crop_pct=0\.5, not 0\.9"),
        ({"crop_pct": 0.9}, r"dataset\.crop_pct=0\.5, not 0\.9"),
    ):
        with pytest.raises(ConfigError, match=message):
            api.evaluate(artifact.path, dataclasses.replace(Bundled("digits"), **wish), experiment.runtime)
    for name, message in (("resize", "crop, not direct"), ("interpolation", "bilinear, not bicubic")):
        with pytest.raises(ConfigError, match=rf"trained with dataset\.{name}={message}; leave it out"):
            api.evaluate(artifact.path, Bundled("digits"), experiment.runtime, named=[f"dataset.{name}"])
