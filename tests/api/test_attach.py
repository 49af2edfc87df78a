"""Adapters in a model of one's own: attached, trained, saved, loaded, and removed without a trace."""

import copy
import json

import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn

import pear_cli
from pear_cli.adapters.lora import LoRA
from pear_cli.config.presets import presets_of
from pear_cli.errors import ConfigError, CorruptArtifact, TrainingError
from tests.api.conftest import ARGS, train

NAMES = ["ant", "bee", "cat"]
METHODS = ("lora", "adaptformer", "houlsby", "lily", "neat", "linear", "bitfit", "full", "splora")


def state(model):
    """All that a bare model is: tensors, flags, hooks."""
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    return tensors, {n: p.requires_grad for n, p in model.named_parameters()}, hooks


def same(one, other):
    tensors = one[0].keys() == other[0].keys() and all(torch.equal(one[0][n], other[0][n]) for n in one[0])
    return tensors and one[1:] == other[1:]


def small(method):
    return {"rank": 2} if "rank" in presets_of("method")[method] else {}


@pytest.mark.parametrize("method", METHODS)
def test_a_model_is_adapted_trained_saved_loaded_and_bare_again(backbone, batch, tmp_path, method):
    model = backbone()
    before, logits = state(model), model(batch[0])
    adapted = pear_cli.attach(model, method, create_args=ARGS, **small(method))
    assert adapted.model is model
    if adapted.method.starts_at_identity:
        torch.testing.assert_close(model(batch[0]), logits)
    train(model, adapted, batch, lr=1e-3)
    trained = model(batch[0])
    assert not torch.allclose(trained, logits)
    file = adapted.save(tmp_path / "m.safetensors", classes=NAMES)
    other = backbone(7)
    untouched = state(other)
    assert pear_cli.load(file, backbone=other) is other
    torch.testing.assert_close(other(batch[0]), trained)
    assert pear_cli.adapted(other).remove() is other
    assert same(state(other), untouched)
    assert adapted.remove() is model
    assert same(state(model), before)
    assert torch.equal(model(batch[0]), logits)


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["volo_d1_224", "samvit_base_patch16"])
def test_every_classifier_of_a_model_is_stored(architecture, tmp_path):
    volo = {}
    sam = {"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 32, "global_attn_indexes": (1,)}
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=3, **(volo if "volo" in architecture else sam)).eval()
    bare = copy.deepcopy(model)
    adapted = pear_cli.attach(model, "lora", rank=2, slots=["attn.proj"])
    for parameter in adapted.parameters():
        nn.init.normal_(parameter, std=0.1)
    size = adapted.transform.size
    x = torch.randn(2, 3, size, size)
    file = adapted.save(tmp_path / "m.safetensors", classes=NAMES)
    bank = pear_cli.TaskBank(copy.deepcopy(bare), {"a": file, "b": file})
    torch.testing.assert_close(torch.stack(bank(x, ["a", "b"])), model(x), atol=1e-5, rtol=0)
    torch.testing.assert_close(pear_cli.load(file, backbone=bare)(x), model(x))


def test_a_model_can_be_exported_as_a_graph(backbone, batch):
    model = backbone()
    train(model, pear_cli.attach(model, "adaptformer", rank=2), batch)
    graph = torch.export.export(model, (batch[0],)).module()
    torch.testing.assert_close(graph(batch[0]), model(batch[0]))


def test_settings_are_the_presets_but_for_what_is_given(backbone):
    preset = presets_of("method")["lora"]
    method = pear_cli.attach(backbone(), "lora", rank=3, slots=["attn.proj"]).method
    assert (method.rank, method.slots, method.scale) == (3, ("attn.proj",), preset["scale"])
    given = LoRA(lr=1.0, rank=2, scale=0.5, dropout=0.0, slots=("attn.q",))
    assert pear_cli.attach(backbone(), given).method == given
    assert pear_cli.attach(backbone(), given, rank=4).method.rank == 4


def test_the_seed_decides_the_initial_values(backbone):
    made = [pear_cli.attach(backbone(), "lora", rank=2, seed=seed).parameters() for seed in (0, 0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(made[0], made[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(made[0], made[2], strict=True))


def test_attach_draws_nothing_from_the_callers_random_numbers(backbone):
    model = backbone()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pear_cli.attach(model, "lora", rank=2)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_stays_and_a_frozen_classifier_is_stored_but_not_trained(backbone, batch, tmp_path, mode):
    model = backbone().train(mode)
    adapted = pear_cli.attach(model, "lora", rank=2, train_head=False)
    assert all(module.training == mode for module in model.modules())
    assert not any(p.requires_grad for p in model.get_classifier().parameters())
    assert all(p.requires_grad for p in adapted.parameters())
    train(model, adapted, batch)
    file = adapted.save(tmp_path / "m.safetensors", classes=NAMES)
    torch.testing.assert_close(pear_cli.load(file, backbone=backbone(5))(batch[0]), model(batch[0]))


def test_batchnorms_of_the_backbone_keep_their_statistics_in_train_mode():
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=3)
    adapted = pear_cli.attach(model, "splora", rank=2, slots=["conv1", "conv2"])
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    assert model.training
    model(torch.randn(4, 3, 64, 64))
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    adapted.remove().train()(torch.randn(4, 3, 64, 64))
    assert not all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_a_copy_is_a_model_of_its_own(backbone, batch):
    model = backbone()
    adapted = pear_cli.attach(model, "lora", rank=2)
    copied = copy.deepcopy(model)
    train(copied, pear_cli.adapted(copied), batch)
    assert not torch.allclose(copied(batch[0]), model(batch[0]))
    bare = copy.deepcopy(backbone())
    train(model, adapted, batch)
    pear_cli.adapted(copied).remove()
    assert torch.equal(copied(batch[0]), bare(batch[0]))
    assert not torch.equal(model(batch[0]), bare(batch[0]))


def test_the_handle_is_found_through_wrappers(backbone, batch):
    model = backbone()
    with pytest.raises(TypeError, match="has no adapters"):
        pear_cli.adapted(model)
    with pytest.raises(TypeError, match="str has no adapters"):
        pear_cli.adapted("model")
    adapted = pear_cli.attach(model, "lora", rank=2)
    train(model, adapted, batch)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(batch[0]), model(batch[0]))
    assert pear_cli.adapted(compiled).model is model
    importance = adapted.score([batch])
    with pytest.raises(ConfigError, match=r"wrapped in OptimizedModule.*unwrap it"):
        pear_cli.adapted(compiled).prune(importance, 0.5)


def test_one_graph_is_compiled_for_each_mode(backbone, batch):
    model = backbone()
    pear_cli.attach(model, "adaptformer", rank=2)
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for _ in range(3):
        compiled(batch[0])
    assert counter.frame_count == 1


def test_distributed_training_finds_a_gradient_for_each_parameter(backbone, batch, tmp_path):
    dist = torch.distributed
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = backbone()
        adapted = pear_cli.attach(model, "lily", rank=2)
        wrapped = nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.SGD(adapted.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            nn.functional.cross_entropy(wrapped(batch[0]), batch[1]).backward()
            optimizer.step()
        assert all(parameter.grad is not None for parameter in adapted.parameters())
        assert pear_cli.adapted(wrapped).model is model
    finally:
        dist.destroy_process_group()


def test_the_transform_is_that_of_training_upright_and_of_every_mode(backbone, tmp_path):
    model = backbone()
    images = pear_cli.Preprocessing(
        32, resize="crop", crop_pct=0.9, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)
    )
    adapted = pear_cli.attach(model, "lora", rank=2, preprocessing=images)
    assert adapted.transform == images
    picture = Image.effect_noise((60, 40), 80).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°
    picture.save(tmp_path / "photo.png", exif=exif)
    with Image.open(tmp_path / "photo.png") as opened:
        x = adapted.transform(opened)
    torch.testing.assert_close(x, images(picture.transpose(Image.Transpose.ROTATE_270)))
    assert (x.shape, x.dtype) == ((3, 32, 32), torch.float32)
    loaded = pear_cli.load(adapted.save(tmp_path / "m.safetensors", classes=NAMES), backbone=backbone())
    assert pear_cli.adapted(loaded).transform == images


def test_the_transform_by_default_is_timms(backbone):
    model = backbone()
    config = timm.data.resolve_model_data_config(model)
    theirs = timm.data.create_transform(**config | {"input_size": (3, 32, 32)}, is_training=False)
    picture = Image.effect_noise((70, 50), 90).convert("RGB")
    ours = pear_cli.attach(model, "lora", rank=2).transform
    torch.testing.assert_close(ours(picture), theirs(picture), atol=1e-5, rtol=0)


def test_a_saved_file_is_the_one_that_export_makes_and_names_no_folder(backbone, tmp_path, monkeypatch, pear):
    adapted = pear_cli.attach(backbone(), "lora", rank=2, create_args=ARGS)
    file = adapted.save(tmp_path / "m.safetensors", classes=NAMES)
    assert adapted.save(tmp_path / "n.safetensors", classes=NAMES).read_bytes() == file.read_bytes()
    with safe_open(file, "pt") as opened:
        description = json.loads(opened.metadata()["description"])
    assert description["weights"] is None
    assert len(description["frozen"]) == 64
    shown = pear("show", str(file))
    assert shown.code == 0, shown.err
    assert "ant" in shown.out
    with pytest.raises(ConfigError, match=r"there already; choose another name, or overwrite=True"):
        adapted.save(file, classes=NAMES)
    assert adapted.save(file, classes=NAMES, overwrite=True) == file
    with pytest.raises(ConfigError, match="give one name for each of the 3 logits"):
        adapted.save(tmp_path / "o.safetensors", classes=["ant"])
    with pytest.raises(ConfigError, match="name the classes"):
        adapted.save(tmp_path / "o.safetensors")
    with pytest.raises(ConfigError, match="each class once"):
        adapted.save(tmp_path / "o.safetensors", classes=["ant", "ant", "bee"])


def test_timm_makes_the_backbone_again_where_its_weights_are_those(backbone, batch, tmp_path):
    model = backbone()
    adapted = pear_cli.attach(model, "lora", rank=2, create_args=ARGS)
    train(model, adapted, batch)
    file = adapted.save(tmp_path / "m.safetensors", classes=NAMES)
    with pytest.raises(ConfigError, match=r"load\(…, backbone=model\)"):
        pear_cli.load(file)
    from safetensors.torch import save_file

    save_file(backbone(0).state_dict(), tmp_path / "weights.safetensors")
    loaded = pear_cli.load(file, weights=tmp_path / "weights.safetensors")
    torch.testing.assert_close(loaded(batch[0]), model(batch[0]))
    with pytest.raises(ConfigError, match="was never bare"):
        pear_cli.adapted(loaded).remove()
    other = {name: tensor + 1 for name, tensor in backbone(0).state_dict().items()}
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"are not those that this task was adapted on.*backbone=model"):
        pear_cli.load(file, weights=tmp_path / "other.safetensors")


def test_a_foreign_or_damaged_file_leaves_the_backbone_as_it_was(backbone, batch, tmp_path):
    adapted = pear_cli.attach(backbone(), "lora", rank=2)
    file = adapted.save(tmp_path / "m.safetensors", classes=NAMES)
    other = backbone(5)
    nn.init.zeros_(other.blocks[0].attn.qkv.weight)
    before = state(other)
    with pytest.raises(ConfigError, match="this vit_tiny_patch16_224 has other frozen tensors"):
        pear_cli.load(file, backbone=other)
    assert same(state(other), before)
    large = timm.create_model("vit_tiny_patch16_224", num_classes=3, **ARGS | {"img_size": 48})
    with pytest.raises(ConfigError, match=r"reads images of 48×48 pixels.*img_size=32"):
        pear_cli.load(file, backbone=large)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    bare = backbone(5)
    before = state(bare)
    with pytest.raises(CorruptArtifact):
        pear_cli.load(file, backbone=bare)
    assert same(state(bare), before)


def test_what_fails_halfway_is_undone(backbone, tmp_path, monkeypatch):
    from pear_cli.model import rebuild

    file = pear_cli.attach(backbone(), "bitfit").save(tmp_path / "m.safetensors", classes=NAMES)
    model = backbone(5)
    before = state(model)

    def fail(*_):
        raise CorruptArtifact("other logits")

    monkeypatch.setattr(rebuild, "check_probe", fail)
    with pytest.raises(CorruptArtifact, match="other logits"):
        pear_cli.load(file, backbone=model)
    assert same(state(model), before)


def test_merging_gives_plain_timm_and_leaves_a_backbone_bare(backbone, batch, tmp_path):
    model = backbone()
    adapted = pear_cli.attach(model, "lora", rank=2)
    train(model, adapted, batch)
    plain = adapted.merge()
    assert plain.state_dict().keys() == backbone().state_dict().keys()
    torch.testing.assert_close(plain(batch[0]), model(batch[0]), atol=1e-4, rtol=1e-4)
    file = adapted.save(tmp_path / "m.safetensors", classes=NAMES)
    bare = backbone(5)
    before = state(bare)
    merged = pear_cli.load(file, backbone=bare, merge=True)
    assert same(state(bare), before)
    torch.testing.assert_close(merged(batch[0]), model(batch[0]), atol=1e-4, rtol=1e-4)


def test_costs_count_each_tensor_once(backbone, batch):
    adapted = pear_cli.attach(backbone(), "lora", rank=2)
    dense = adapted.costs()
    adapters, head = 8 * 2 * 2 * 32, 3 * 33
    assert dense.trained == dense.stored == adapters + head
    adapted.prune(adapted.score([batch]), 0.5)
    pruned = adapted.costs()
    assert (pruned.trained, pruned.stored) == (adapters // 2 + head, adapters + head)
    assert pruned.bytes >= 4 * pruned.stored
    assert pruned.macs >= dense.macs > 0


def grey(model):
    return timm.create_model("vit_tiny_patch16_224", num_classes=3, in_chans=1, **ARGS)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda m: nn.Linear(3, 3), "Linear is no model of timm"),
        (lambda m: m.half(), "the model is torch.float16: adapters train in float32"),
        (lambda m: pear_cli.attach(m, "linear").model, r"has adapters already; .*remove\(\)"),
        (lambda m: (m.reset_classifier(0), m)[1], "no classifier of two or more classes"),
        (lambda m: torch.compile(m, backend="eager"), "unwrap it first"),
        (lambda m: grey(m), r"takes no images \(3, 32, 32\): "),
    ],
)
def test_a_model_that_cannot_be_adapted_is_refused_and_stays_as_it_was(backbone, spoil, said):
    model = spoil(backbone())
    before = None if isinstance(model, nn.Linear) else state(model)
    with pytest.raises(ConfigError, match=said):
        pear_cli.attach(model, "lora", rank=2)
    assert before is None or same(state(model), before)


def test_a_classifier_that_is_replaced_meanwhile_is_saved_and_stays(backbone, batch, tmp_path):
    model = backbone()
    adapted = pear_cli.attach(model, "lora", rank=2)
    model.reset_classifier(4)
    assert adapted.parameters()[-1].shape == (4,)
    file = adapted.save(tmp_path / "m.safetensors", classes=[*NAMES, "dog"])
    torch.testing.assert_close(pear_cli.load(file, backbone=backbone(7))(batch[0]), model(batch[0]))
    assert adapted.remove().get_classifier().out_features == 4


def test_wrong_settings_are_named(backbone):
    model = backbone()
    before = state(model)
    for method, settings, said in (
        ("lora", {"rnk": 2}, "no setting 'rnk'; did you mean \"rank\""),
        ("lara", {}, "method = 'lara' is unknown; did you mean \"lora\""),
        ("lora", {"rank": 0}, "method.rank = 0"),
        ("lora", {"rank": 64}, "at most 32"),
        ("lora", {"slots": ["attn.x"]}, "no slot 'attn.x'"),
        ("lora", {"preprocessing": pear_cli.Preprocessing(64)}, "preprocessing.size = 64"),
        ("lora", {"create_args": {"norm_layer": nn.LayerNorm}}, "norm_layer"),
        ("lora", {"create_args": {"in_chans": 1}}, "backbone.args.in_chans = 1"),
    ):
        with pytest.raises(ConfigError, match=said):
            pear_cli.attach(model, method, **settings)
    assert same(state(model), before)


def test_a_module_that_the_model_never_calls_is_an_error_and_undone(backbone):
    model = backbone()
    attention = model.blocks[1].attn
    attention.forward = lambda x, **_: x
    before = state(model)
    with pytest.raises(TrainingError, match=r"never calls blocks.1.attn"):
        pear_cli.attach(model, "lora", rank=2)
    assert same(state(model), before)
