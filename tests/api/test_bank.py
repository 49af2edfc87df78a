"""Many tasks on one backbone: each as alone, mixed batches, refusals, and threads."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
from torch import nn

import pear_cli
from pear_cli.errors import ConfigError, CorruptArtifact, MissingArtifact
from tests.api.conftest import ARGS, train
from tests.api.test_attach import same, state

TASKS = {
    "lora2": ("lora", {"rank": 2}, 3),
    "lora5": ("lora", {"rank": 5, "slots": ["attn.proj", "mlp.fc1"]}, 4),
    "shared": ("lora", {"rank": 2}, 3),
    "heads": ("lora", {"rank": 2}, 3),
    "former": ("adaptformer", {"rank": 2}, 5),
    "houlsby": ("houlsby", {"rank": 2}, 3),
    "lily": ("lily", {"rank": 2}, 3),
    "neat": ("neat", {"rank": 2}, 3),
    "linear": ("linear", {}, 6),
}


@pytest.fixture(scope="module")
def tasks(backbone, tmp_path_factory):
    """The files of some tasks, and the model of each alone."""
    folder, paths, alone = tmp_path_factory.mktemp("tasks"), {}, {}
    x = torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    for name, (method, settings, classes) in TASKS.items():
        model = backbone(classes)
        adapted = pear_cli.attach(model, method, create_args=ARGS, **settings)
        batch = x, torch.arange(12) % classes
        train(model, adapted, batch)
        if name == "shared":
            adapted.prune(adapted.score([batch]), 0.5, knowledge={"kind": "int8", "beta": 0.5})
        if name == "heads":
            adapted.prune(adapted.score([batch], unit="head"), 0.4, effect="attention")
        names = [f"{name} {index}" for index in range(classes)]
        paths[name] = adapted.save(folder / f"{name}.safetensors", classes=names)
        alone[name] = model
    return paths, alone


@pytest.fixture
def images():
    return torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_a_batch_of_one_task_is_that_task_alone(backbone, tasks, images):
    paths, alone = tasks
    model = backbone(0)
    bare = model(images)
    bank = pear_cli.TaskBank(model, paths)
    assert list(bank) == list(TASKS)
    assert len(bank) == len(TASKS)
    for name, (_, _, classes) in TASKS.items():
        torch.testing.assert_close(bank(images, name), alone[name](images), atol=1e-5, rtol=0)
        assert bank.classes(name) == tuple(f"{name} {index}" for index in range(classes))
    assert torch.equal(model(images), bare)


@torch.no_grad()
@pytest.mark.parametrize(
    "names",
    [
        ["lora2", "lora5", "lora2", "shared", "lora5", "linear", "lora2"],
        ["former", "lora2", "neat", "houlsby", "former", "heads", "lora5"],
        ["heads", "shared", "heads", "shared", "heads", "shared", "heads"],
        list(TASKS)[:7],
    ],
)
@pytest.mark.parametrize("classes", [0, 9])
def test_a_mixed_batch_is_each_task_alone(backbone, tasks, images, names, classes):
    paths, alone = tasks
    found = pear_cli.TaskBank(backbone(classes), paths)(images, names)
    assert isinstance(found, list)
    for index, name in enumerate(names):
        mine = [
            i for i, other in enumerate(names) if other == name
        ]  # Lily's routers see all images of a task
        expected = alone[name](images[mine])[mine.index(index)]
        torch.testing.assert_close(found[index], expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(
    "architecture",
    ["swin_tiny_patch4_window7_224", "deit_tiny_distilled_patch16_224", "beit_base_patch16_224"],
)
def test_windows_and_several_classifiers(tmp_path, architecture):
    size, small = (
        (64, {"img_size": 64}) if architecture.startswith("swin") else (32, {"img_size": 32, "depth": 2})
    )
    if architecture.startswith("swin"):
        small |= {"depths": (1, 1, 2, 1), "embed_dim": 24, "num_heads": (1, 2, 4, 8), "window_size": 4}
    else:
        small |= {"embed_dim": 48, "num_heads": 4}
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=0, **small).eval()
    x = torch.randn(5, 3, size, size)
    paths, expected = {}, {}
    for rank in (2, 3):
        own = copy.deepcopy(model)
        own.reset_classifier(rank)
        adapted = pear_cli.attach(own, "lora", rank=rank, slots=["attn.qkv", "mlp.fc1"], create_args=small)
        for parameter in adapted.parameters():
            nn.init.normal_(parameter, std=0.1)
        paths[f"rank {rank}"] = adapted.save(tmp_path / f"{rank}.safetensors", classes=list("abc"[:rank]))
        expected[f"rank {rank}"] = own.eval()(x)
    bank = pear_cli.TaskBank(model, paths)
    names = ["rank 2", "rank 3", "rank 3", "rank 2", "rank 3"]
    for index, logits in enumerate(bank(x, names)):
        torch.testing.assert_close(logits, expected[names[index]][index], atol=1e-5, rtol=0)


def test_a_bank_is_empty_and_its_backbone_bare_without_tasks(backbone, tasks, images):
    paths, _ = tasks
    model = backbone(3)
    before = state(model)
    bank = pear_cli.TaskBank(model, {"a": paths["heads"], "b": paths["former"]})
    bank.remove("a")
    with pytest.raises(ConfigError, match=r"no task 'a'; tasks: b"):
        bank(images, "a")
    bank.add("a", paths["lora2"])
    assert bank(images, "a").shape == (7, 3)
    for name in list(bank):
        bank.remove(name)
    assert same(state(model), before)


def test_no_task_in_a_batch_takes_anything_from_others(backbone, tasks):
    paths, _ = tasks
    bank = pear_cli.TaskBank(backbone(0), paths)
    assert bank(torch.zeros(0, 3, 32, 32), "lora2").shape == (0, 3)
    assert bank(torch.zeros(0, 3, 32, 32), []) == []
    assert bank(torch.zeros(1, 3, 32, 32), ["linear"])[0].shape == (6,)


def test_threads_and_banks_do_not_disturb_each_other(backbone, tasks, images):
    paths, _ = tasks
    model = backbone(0)
    bank, other = pear_cli.TaskBank(model, paths), pear_cli.TaskBank(model, {"lora2": paths["lora5"]})
    names = ["lora2", "former", "shared", "linear"] * 6
    expected = [bank(images, name) for name in names]
    assert not torch.equal(other(images, "lora2")[:, :3], bank(images, "lora2"))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda name: bank(images, name), names))
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize(
    ("method", "unit", "said"),
    [
        ("full", None, "FullFineTuning trains the backbone itself"),
        ("bitfit", None, "BitFit trains the backbone itself"),
        ("splora", "channel", "its channels are pruned"),
        ("splopa", "block", "blocks of the frozen weights are pruned"),
    ],
)
def test_tasks_that_change_the_backbone_are_refused_by_name(backbone, batch, tmp_path, method, unit, said):
    settings = {"block": [8, 8], "prototypes": 2, "rank": 1} if method == "splopa" else {}
    settings |= {"rank": 2} if method == "splora" else {}
    model = backbone()
    adapted = pear_cli.attach(model, method, create_args=ARGS, **settings)
    if unit is not None:
        train(model, adapted, batch)
        adapted.prune(adapted.score([batch], unit=unit), 0.5, scope="slot")
    file = adapted.save(tmp_path / "m.safetensors", classes=list("abc"))
    bare = backbone(0)
    before = state(bare)
    with pytest.raises(ConfigError, match=rf"task 'birds' \(.*\): {said}"):
        pear_cli.TaskBank(bare, {"birds": file})
    assert same(state(bare), before)


def test_other_backbones_sizes_and_files_are_refused_and_the_bank_stays(backbone, tasks, images, tmp_path):
    paths, _ = tasks
    other = backbone(0)
    nn.init.zeros_(other.blocks[0].attn.qkv.weight)
    with pytest.raises(ConfigError, match=r"task 'birds' \(.*\): this vit_tiny_patch16_224 has other frozen"):
        pear_cli.TaskBank(other, {"birds": paths["lora2"]})
    large = timm.create_model("vit_tiny_patch16_224", num_classes=0, **ARGS | {"img_size": 48})
    with pytest.raises(ConfigError, match=r"task 'birds' \(.*\): .*img_size=32"):
        pear_cli.TaskBank(large, {"birds": paths["lora2"]}, verify=False)
    bank = pear_cli.TaskBank(backbone(0), {"a": paths["lora2"]})
    expected = bank(images, "a")
    damaged = bytearray(paths["former"].read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(damaged)
    for path, error in (
        (tmp_path / "damaged.safetensors", CorruptArtifact),
        ("none.safetensors", MissingArtifact),
    ):
        with pytest.raises(error):
            bank.add("b", path)
    with pytest.raises(ConfigError, match="has a task 'a' already"):
        bank.add("a", paths["former"])
    assert list(bank) == ["a"]
    assert torch.equal(bank(images, "a"), expected)


def test_wrong_batches_are_refused(backbone, tasks, images):
    paths, _ = tasks
    bank = pear_cli.TaskBank(backbone(0), {"a": paths["lora2"]})
    for x, names, said in (
        (images, "b", "the bank has no task 'b'; tasks: a"),
        (images, ["a"] * 6, "6 tasks for 7 images"),
        (images[..., :16], "a", r"images of shape \(7, 3, 32, 16\)"),
        (images[0], "a", r"\(B, 3, 32, 32\)"),
    ):
        with pytest.raises(ConfigError, match=said):
            bank(x, names)


def test_a_bank_has_the_transform_of_each_task(backbone, tmp_path):
    images = pear_cli.Preprocessing(32, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), grey_range=255)
    adapted = pear_cli.attach(backbone(), "lora", rank=2, preprocessing=images)
    file = adapted.save(tmp_path / "m.safetensors", classes=list("abc"))
    assert pear_cli.TaskBank(backbone(0), {"a": file}).transform("a") == images


def test_artifacts_of_the_store_are_tasks_too(finished):
    path = finished.made["eval"].path
    alone = pear_cli.load(path)
    model = pear_cli.adapted(pear_cli.load(path)).merge()
    assert model is not alone
    x = torch.randn(3, 3, 16, 16)
    bare = timm.create_model("vit_tiny_patch16_224", num_classes=0, **finished.experiment.backbone.args)
    frozen = {n: t for n, t in alone.state_dict().items() if not n.startswith(("adaptation.", "head."))}
    bare.load_state_dict(frozen)
    bank = pear_cli.TaskBank(bare, {"digits": path})
    torch.testing.assert_close(bank(x, "digits"), alone(x).detach(), atol=1e-5, rtol=0)
