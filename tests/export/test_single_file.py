"""A model in one file."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open

import pear_cli
from pear_cli.backbone import weights as weightfile
from pear_cli.errors import ConfigError, CorruptArtifact, MissingArtifact, StoreError
from pear_cli.export import load as api
from pear_cli.export import merged, single_file, writing
from pear_cli.export.single_file import read
from pear_cli.export.writing import export
from pear_cli.model import models
from pear_cli.report.terminal.exported import print_exported
from pear_cli.report.terminal.layout import console


@pytest.fixture
def exported(finished, tmp_path):
    return export(finished.made["eval"].path, tmp_path / "model.safetensors")


def rewrite(path, change):
    """Change the header of a file, and leave its hash as it was."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[start:])


def test_an_exported_model_gives_the_logits_of_the_stored_one(finished, exported):
    stored = pear_cli.load(finished.made["eval"].path)
    loaded = pear_cli.load(exported)
    torch.testing.assert_close(models.probe(loaded, 16), models.probe(stored, 16), rtol=0, atol=0)
    assert loaded.pretrained_cfg["label_names"] == tuple("0123456789")


def test_it_needs_no_store(finished, exported, tmp_path, monkeypatch):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.move(exported, alone / "m.safetensors")
    monkeypatch.chdir(alone)
    assert pear_cli.load("m.safetensors").num_classes == 10


def test_it_is_no_backbone_and_the_error_says_what_it_is(exported):
    with pytest.raises(ConfigError, match=r"is a model that pear exported: .* pear export KEY --merge"):
        weightfile.load(timm.create_model("test_vit"), exported)


def test_it_evaluates_like_the_artifact(finished, exported):
    metrics = api.evaluate(exported, finished.experiment.dataset, finished.experiment.runtime)
    assert metrics["accuracy"] == finished.made["eval"].manifest["metrics"]["accuracy"]


def test_a_shared_adapter_is_in_it_once_and_the_backbone_is_not(finished, exported):
    file = read(exported)
    homes = {owner for owner in file.description["owners"].values()}
    adapters = {
        name.removeprefix("adapter.").rpartition(".")[0] for name in file.trained if "adapter." in name
    }
    assert adapters == homes
    assert len(homes) < len(file.description["owners"])
    assert {name.split(".")[0] for name in file.tensors} == {"adapter", "head", "knowledge", "probe"}


def test_it_carries_where_it_comes_from_and_its_importance(finished, exported):
    file = read(exported)
    assert file.origin["key"] == finished.made["adapt"].key
    assert file.importance == finished.made["score"].json("importance")


def test_the_same_artifact_gives_the_same_bytes(finished, exported, tmp_path):
    again = export(finished.made["adapt"].key, tmp_path / "again.safetensors", finished.store)
    assert again.read_bytes() == exported.read_bytes()


def test_other_programs_read_it_as_safetensors(exported):
    with safe_open(exported, "pt") as file:
        assert "probe.logits" in file.keys()  # noqa: SIM118
        assert file.metadata()["pear_schema"] == "1"


def test_a_file_that_is_there_is_only_replaced_by_force(finished, exported):
    before = exported.read_bytes()
    with pytest.raises(ConfigError, match="--force"):
        export(finished.made["train"].path, exported)
    assert exported.read_bytes() == before
    export(finished.made["train"].path, exported, force=True)
    assert read(exported).origin["key"] == finished.made["train"].key
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]


def test_a_folder_or_another_ending_is_refused(finished, tmp_path):
    with pytest.raises(ConfigError, match=r"ends in \.safetensors"):
        export(finished.made["adapt"].path, tmp_path / "model.pt")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(ConfigError, match="another name"):
        export(finished.made["adapt"].path, tmp_path / "folder.safetensors", force=True)
    with pytest.raises(StoreError, match="cannot write"):
        export(finished.made["adapt"].path, tmp_path / "absent" / "model.safetensors")


@pytest.mark.parametrize("place", [9, 500, -1])
def test_a_flipped_bit_is_found(exported, place):
    content = bytearray(exported.read_bytes())
    content[place] ^= 1
    exported.write_bytes(content)
    with pytest.raises(CorruptArtifact, match="export it again"):
        pear_cli.load(exported)


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_a_file_cut_short_is_found(exported, size):
    exported.write_bytes(exported.read_bytes()[:size])
    with pytest.raises(CorruptArtifact, match="export it again"):
        pear_cli.load(exported)


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["__metadata__"].update(description="{}"),
        lambda header: header["__metadata__"].pop("sha256"),
        lambda header: header["__metadata__"].update(extra="x"),
        lambda header: header.pop("__metadata__"),
        lambda header: header.update(adapter=header.pop("probe.logits")),
    ],
)
def test_an_altered_header_is_found(exported, change):
    rewrite(exported, change)
    with pytest.raises(CorruptArtifact):
        pear_cli.load(exported)


def forge(path, texts=None, tensors=None):
    """Write a file whose hash is right, whatever is in it."""
    file = read(path)
    kept = {name: text for name, text in file.texts.items() if name != "sha256"}
    path.write_bytes(single_file.serialise(file.tensors | (tensors or {}), kept | (texts or {})))


def test_a_foreign_tensor_is_refused(exported):
    forge(exported, tensors={"optimizer.state": torch.zeros(1)})
    with pytest.raises(CorruptArtifact, match="unknown tensor"):
        pear_cli.load(exported)


def test_a_tensor_of_another_shape_is_refused(exported):
    forge(exported, tensors={"head.bias": torch.zeros(3)})
    with pytest.raises(CorruptArtifact, match=r"head\.bias"):
        pear_cli.load(exported)


def test_other_values_of_a_tensor_fail_the_probe(exported):
    forge(exported, tensors={"head.bias": torch.ones(10)})
    with pytest.raises(CorruptArtifact, match="logits"):
        pear_cli.load(exported)


@pytest.mark.parametrize("text", ["[]", "{}", "null", "{", '{"backbone": 3}'])
def test_a_description_of_something_else_is_refused(exported, text):
    forge(exported, {"description": text})
    with pytest.raises(CorruptArtifact):
        pear_cli.load(exported)


def test_a_newer_schema_says_upgrade(exported):
    forge(exported, {"pear_schema": "2"})
    with pytest.raises(StoreError, match="upgrade"):
        pear_cli.load(exported)


def test_a_plain_safetensors_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(CorruptArtifact, match="not one that pear exported"):
        pear_cli.load(tmp_path / "plain.safetensors")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingArtifact, match=r"gone\.safetensors"):
        pear_cli.load(tmp_path / "gone.safetensors")


def test_an_exported_file_is_not_exported_again(exported, tmp_path):
    with pytest.raises(ConfigError, match="already"):
        export(exported, tmp_path / "again.safetensors")


def test_a_checkpoint_and_a_dense_model_are_exported_too(finished, tmp_path):
    for step in ("train", "checkpoint"):
        file = export(finished.made[step].path, tmp_path / f"{step}.safetensors")
        stored = finished.made[step].tensors("probe")["logits"]
        torch.testing.assert_close(models.probe(pear_cli.load(file), 16), stored)
    assert read(tmp_path / "train.safetensors").importance is None
    assert read(tmp_path / "checkpoint.safetensors").importance is not None


@pytest.mark.parametrize(
    ("weights", "kept"), [("/home/me/vit.safetensors", "vit.safetensors"), ("pear_mini",) * 2]
)
def test_of_frozen_weights_only_the_name_is_exported(finished, weights, kept):
    description = finished.made["adapt"].json("model")
    description["backbone"]["weights"] = weights
    assert writing.portable(description)["backbone"]["weights"] == kept
    assert writing.portable(description)["weights"] == description["weights"]


def test_frozen_weights_that_this_machine_lacks_are_asked_for(exported):
    description = read(exported).description
    description["backbone"]["weights"] = "vit.safetensors"
    forge(exported, {"description": json.dumps(description)})
    with pytest.raises(ConfigError, match=r"vit\.safetensors: no such file(.|\n)*--weights"):
        pear_cli.load(exported)


def test_a_description_of_a_stranger_is_refused_with_the_file_that_it_is_in(exported):
    description = read(exported).description
    description["backbone"]["args"]["checkpoint_path"] = "/etc/passwd"
    forge(exported, {"description": json.dumps(description)})
    with pytest.raises(CorruptArtifact, match=rf"{exported}: .*checkpoint_path is refused"):
        pear_cli.load(exported)


def test_stored_bytes_are_those_of_adapters_classifier_and_knowledge(finished):
    for step in ("train", "checkpoint", "adapt"):
        files = finished.made[step].manifest["files"]
        kept = [
            files[f"{name}.safetensors"]["bytes"]
            for name in ("adapters", "knowledge")
            if f"{name}.safetensors" in files
        ]
        assert finished.made[step].manifest["accounting"]["stored_bytes"] == sum(kept)
    adapted, evaluated = (finished.made[step].manifest["accounting"] for step in ("adapt", "eval"))
    assert evaluated["stored_bytes"] == adapted["stored_bytes"]
    assert finished.made["eval"].manifest["environment"]["weights"].startswith("random-")


def test_show_draws_an_exported_file_without_its_store(exported):
    text = io.StringIO()
    print_exported(exported, console(text))
    lines = text.getvalue().splitlines()
    assert lines[0].startswith("exported train ")
    assert any(line.startswith("model ") and "vit_tiny" in line for line in lines)
    assert sum(line.count("→") for line in lines if " K" in line) == 4
    assert any("1.00 is" in line for line in lines)


@pytest.fixture
def plain(finished, tmp_path):
    """A merged model in a file, and how far it is from the adapted one."""
    path = tmp_path / "plain.safetensors"
    return path, merged.export(finished.made["eval"].path, path)


def in_timm(path):
    """What a program that knows nothing of pear makes of a merged file."""
    with safe_open(path, "pt") as file:
        texts = {name: json.loads(text) for name, text in file.metadata().items()}
    args = {"num_classes": len(texts["classes"]), **texts["timm_args"]}
    by_path = timm.create_model(texts["timm_name"], checkpoint_path=str(path), **args).eval()
    loaded = timm.create_model(texts["timm_name"], **args).eval()
    timm.models.load_checkpoint(loaded, str(path), strict=True)
    assert all(torch.equal(t, loaded.state_dict()[name]) for name, t in by_path.state_dict().items())
    return loaded, texts


def test_timm_alone_makes_the_model_of_a_merged_file(finished, plain):
    path, error = plain
    model, _ = in_timm(path)
    adapted = models.probe(pear_cli.load(finished.made["eval"].path), 16)
    torch.testing.assert_close(models.probe(model, 16), adapted, atol=1e-5, rtol=0)
    assert error == (models.probe(model, 16) - adapted).abs().max() < 1e-5
    assert not any("adaptation" in name for name in model.state_dict())


def test_a_merged_file_says_what_it_is_and_how_its_images_are_prepared(finished, plain):
    _, texts = in_timm(plain[0])
    assert texts["classes"] == list("0123456789")
    assert texts["origin"] == finished.made["adapt"].key
    assert (texts["timm_name"], texts["timm_args"]["img_size"]) == ("vit_tiny_patch16_224", 16)
    assert texts["timm_version"] == timm.__version__
    assert texts["data"]["input_size"] == [3, 16, 16]
    assert texts["data"]["mean"] == texts["data"]["std"] == [0.5, 0.5, 0.5]
    picture = Image.new("RGB", (40, 24), (255, 0, 0))
    said = timm.data.create_transform(**texts["data"])(picture)
    loaded = pear_cli.load(finished.made["eval"].path)
    expected = timm.data.create_transform(**timm.data.resolve_model_data_config(loaded))(picture)
    torch.testing.assert_close(said, expected, rtol=0, atol=0)


def test_a_merged_model_is_the_same_from_a_key_a_folder_and_an_exported_file(finished, exported, plain):
    for source in (finished.made["adapt"].key, finished.made["adapt"].path, exported):
        again = exported.with_name("again.safetensors")
        merged.export(source, again, finished.store, force=True)
        assert again.read_bytes() == plain[0].read_bytes()
    with pytest.raises(ConfigError, match="--force"):
        merged.export(exported, plain[0])
    with pytest.raises(ConfigError, match=r"ends in \.safetensors"):
        merged.export(exported, plain[0].with_suffix(".pt"))


def test_of_other_frozen_weights_no_merged_file_is_written(finished, tmp_path):
    other, out = tmp_path / "other.safetensors", tmp_path / "m.safetensors"
    other.write_bytes(b"")
    with pytest.raises(ConfigError, match="are others than this model was adapted on"):
        merged.export(finished.made["adapt"].path, out, weights=str(other))
    assert not out.exists()


def test_pear_says_of_a_merged_file_that_it_is_timms(pear, plain):
    with pytest.raises(ConfigError, match="is a merged model: plain weights for timm"):
        pear_cli.load(plain[0])
    for words in ("show", "predict"):
        said = pear(words, str(plain[0]), *(["x.png"] if words == "predict" else []))
        assert (said.code, said.out) == (1, "")
        assert "is a merged model" in said.err


def test_a_model_loads_merged(finished):
    path = finished.made["eval"].path
    model = pear_cli.load(path, merge=True)
    assert type(model) is type(timm.create_model("vit_tiny_patch16_224"))
    assert not hasattr(model, "adaptation")
    assert not model.training
    assert model.pretrained_cfg["label_names"] == tuple("0123456789")
    torch.testing.assert_close(
        models.probe(model, 16), models.probe(pear_cli.load(path), 16), atol=1e-5, rtol=0
    )


def test_the_command_writes_a_merged_file_and_says_how_exact_it_is(pear, finished, tmp_path):
    words = ("export", finished.made["eval"].key, f"--store={finished.store.root}", "--out=m.safetensors")
    said = pear(*words, "--merge")
    assert (said.code, said.out) == (0, "m.safetensors\n")
    assert re.fullmatch(r"pear export: max \|Δlogit\| .*: \d\.\de-\d\d\n", said.err)
    assert in_timm(tmp_path / "m.safetensors")[0].num_classes == 10
    said = pear(*words, "--merge")
    assert (said.code, said.out) == (1, "")
    assert pear(*words, "--merge", "--force").code == 0


def test_frozen_weights_are_named_for_merging_alone(pear):
    said = pear("export", "3f2a", "--out=m.safetensors", "--weights=w.safetensors")
    assert said.code == 2
    assert "--weights goes with --merge" in said.err


def test_a_model_that_does_not_merge_is_refused_by_every_way(pear, quiet, tmp_path):
    presets = str(Path(__file__).parent.parent / "configs")
    tiny = ("dataset=digits", "backbone=tiny", "optim.epochs=1", "optim.batch_size=200", "runtime.threads=1")
    made = pear("train", "--config-dir", presets, *quiet, *tiny, "method=adaptformer", "method.rank=2", "-q")
    folder = made.out.strip()
    said = pear("export", folder, "--merge", "--out=m.safetensors")
    assert (said.code, said.out) == (1, "")
    assert "AdaptFormer cannot be merged into a frozen weight: there is an activation" in said.err
    assert not (tmp_path / "m.safetensors").exists()
    with pytest.raises(ConfigError, match="AdaptFormer cannot be merged"):
        pear_cli.load(folder, merge=True)
    assert pear("export", folder, "--out=m.safetensors").code == 0


def test_a_structured_adapter_without_pruned_channels_merges(pear, quiet, tmp_path):
    presets = str(Path(__file__).parent.parent / "configs")
    tiny = ("dataset=digits", "backbone=tiny", "optim.epochs=1", "optim.batch_size=200", "runtime.threads=1")
    words = ("method=splora", "method.rank=2", "prune.ratio=0", "optim.adapt_epochs=1", "-q")
    made = pear("run", "--config-dir", presets, *quiet, *tiny, *words)
    assert made.code == 0, made.err
    said = pear("export", made.out.strip(), "--merge", "--out=m.safetensors")
    assert (said.code, said.out) == (0, "m.safetensors\n"), said.err


def test_a_file_that_the_first_pear_exported_still_loads():
    file = Path(__file__).parent.parent / "golden" / "task_schema_1.safetensors"
    model = pear_cli.load(file)  # checks its logits
    assert model.pretrained_cfg["label_names"] == tuple("0123456789")
    assert single_file.read(file).origin["schema"] == 1
