import io
import shutil

import pytest

from pear_cli.errors import CorruptArtifact, StoreError
from pear_cli.report.analysis.pruned import Channels, Parts, Sites, from_description, place
from pear_cli.report.terminal.drawing import draw
from pear_cli.report.terminal.layout import console
from pear_cli.report.terminal.show import print_artifact, print_share_map


def test_the_share_map_shows_who_serves_where(fake, lines_of):
    made = fake.experiment()
    lines = lines_of(print_share_map, made["prune-share"], fake.store)
    drawn = ["block attn.q     attn.v", "    0 → 1        ▓ 0.60", "    1 █ 1.00 ×2  ·"]
    assert lines[:3] == drawn
    assert any("1.00 is 0.5" in line for line in lines)


def test_knowledge_that_is_kept_is_marked(fake, lines_of):
    made = fake.experiment()
    lines = lines_of(print_share_map, made["eval"], fake.store)
    assert "→ 1 K" in lines[1]
    assert "· K" in lines[2]
    plain = fake.experiment(kind="none")
    assert not any(" K" in line for line in lines_of(print_share_map, plain["eval"], fake.store))


def test_importance_is_drawn_for_scores(fake, lines_of):
    lines = lines_of(print_share_map, fake.experiment()["score"], fake.store)
    assert lines[1] == "    0 ░ 0.20  ▓ 0.60"
    assert lines[2] == "    1 █ 1.00  ▒ 0.40"


def test_heads_and_ranks_are_drawn_as_one_shade_each():
    names = tuple(f"blocks.{block}.attn.heads.{head}" for block in range(2) for head in range(3))
    scores = dict(zip(names, (0.0, 0.5, 1.0, 0.3, 0.8, 0.1), strict=True))
    lines = [line.plain for line in draw(Parts(names, scores, frozenset({names[0], names[4]})), 80)]
    assert lines[:3] == ["block attn", "    0 ·▓█", "    1 ▒·░"]
    ranks = tuple(f"blocks.0.attn.{slot}.ranks.{rank}" for slot in "qv" for rank in range(2))
    assert [line.plain for line in draw(Parts(ranks), 80)] == ["block attn.q  attn.v", "    0 ██      ██"]


def test_channels_are_counted_by_layer():
    names = tuple(f"blocks.{b}.mlp.fc1.channels.{i}" for b in range(2) for i in range(12))
    drawn = draw(Channels.from_names(names, frozenset(names[:9])), 80)
    assert [line.plain for line in drawn[:3]] == ["block mlp.fc1", "    0 3/12", "    1 12/12"]


def test_a_layer_that_is_numbered_stands_below_its_parents_name_in_the_row_of_its_block():
    layers = ("layer2.0.conv1", "layer2.0.downsample.0", "layer2.1.conv1")
    names = tuple(f"{layer}.channels.{i}" for layer in layers for i in range(4))
    drawn = [line.plain.split() for line in draw(Channels.from_names(names), 80)[:3]]
    assert drawn == [["block", "conv1", "downsample.0"], ["0", "4/4", "4/4"], ["1", "4/4"]]


def test_a_dense_model_has_no_drawing(fake, lines_of):
    assert lines_of(print_share_map, fake.experiment(dense_only=True)["eval"], fake.store) == []


def test_seven_slots_of_twelve_blocks_fit_80_columns():
    slots = ("attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2", "mlp")
    sites = tuple(f"blocks.{block}.{slot}" for block in range(12) for slot in slots)
    owners = {site: f"blocks.11.{site.split('.', 2)[2]}" for site in sites}
    drawing = Sites(sites, dict.fromkeys(sites, 0.5), owners, frozenset(s for s in sites if owners[s] != s))
    lines = [line.plain for line in draw(drawing, 80)]
    assert max(map(len, lines)) <= 80
    assert sum(line.count("→ 11 K") for line in lines) == 77


def test_slots_that_do_not_fit_follow_below():
    sites = tuple(f"blocks.0.attn.{slot}" for slot in ("q", "k", "v"))
    lines = [line.plain for line in draw(Sites(sites, dict.fromkeys(sites, 1.0)), 19)]
    heads = [line.split()[1:] for line in lines if line.startswith("block")]
    assert heads == [["attn.q"], ["attn.k"], ["attn.v"]]
    assert max(map(len, lines[:8])) <= 19


def test_negative_importance_is_the_lightest():
    lines = draw(Sites(("blocks.0.mlp", "blocks.1.mlp"), {"blocks.0.mlp": -0.5, "blocks.1.mlp": 1.0}), 80)
    assert lines[1].plain == "    0 ░ -0.50"


def test_blocks_count_over_the_stages_of_a_hierarchical_backbone():
    sites = ("layers.1.blocks.0.attn.q", "layers.0.blocks.10.attn.q", "layers.0.blocks.2.attn.q")
    assert place(sites) == {
        "layers.0.blocks.2.attn.q": (0, "attn.q"),
        "layers.0.blocks.10.attn.q": (1, "attn.q"),
        "layers.1.blocks.0.attn.q": (2, "attn.q"),
    }


def test_show_sums_up_every_kind_of_artifact(fake, lines_of):
    for step, artifact in fake.experiment().items():
        first = lines_of(print_artifact, artifact, fake.store)
        assert not any(line.startswith("config") for line in first)
        lines = lines_of(print_artifact, artifact, fake.store, everything=True)
        assert lines[0] == first[0] == f"{step} {artifact.key}"
        assert any(line.startswith("config") for line in lines)


def test_show_prints_the_whole_experiment_and_its_accuracy(fake, lines_of):
    made = fake.experiment(select="test_oracle")["eval"]
    lines = lines_of(print_artifact, made, fake.store, everything=True)
    text = "\n".join(lines)
    assert "accuracy 90.00 %" in text
    assert "prune.ratio 0.5" in text
    assert "stored_bytes 102 KiB" in text
    assert "note: test_oracle" in text


def test_show_tells_what_costs_are_of(fake, lines_of):
    costs = {"network_params": 5, "macs_per_image": 3, "whole_macs_per_image": 9, "speedup_theoretical": 3.0}
    made = fake.publish("checkpoint", {}, accounting=costs)
    text = "\n".join(lines_of(print_artifact, made, fake.store, width=80, everything=True))
    for said in ("as the network runs", "adapters beside the weights", "before channels were pruned"):
        assert said in text
    assert max(len(line) for line in text.splitlines()[2:] if not line.startswith("repeat with")) <= 80


def test_a_learning_curve_is_at_most_a_dozen_epochs_and_the_one_that_was_kept(fake, lines_of):
    lines = lines_of(print_artifact, fake.experiment()["train"], fake.store)
    curve = lines[lines.index("learning curve") + 2 : -1]
    epochs = [line.split()[0] for line in curve]
    assert (epochs[0], epochs[-1], "4*" in epochs) == ("1", "30", True)
    assert len(epochs) <= 13


def test_show_notes_inputs_that_are_gone(fake, lines_of):
    made = fake.experiment()
    shutil.rmtree(made["score"].path)
    lines = lines_of(print_artifact, made["prune-share"], fake.store)
    assert "note: its input score is gone from the store" in lines
    assert any("its importance is not in the store" in line for line in lines)


def test_altered_files_are_not_drawn(fake, lines_of):
    made = fake.experiment()["prune-share"]
    path = made.path / "share_map.json"
    path.write_bytes(path.read_bytes().replace(b"blocks.1", b"blocks.9"))
    with pytest.raises(CorruptArtifact, match="share_map"):
        lines_of(print_share_map, made, fake.store)


def test_a_description_that_is_none_is_refused():
    with pytest.raises(StoreError, match="not the description"):
        from_description({"owners": []}, {})
    with pytest.raises(StoreError, match="no site"):
        from_description({"owners": {"a.attn.q": "b.attn.q"}, "knowledge": None}, {})


def test_names_cannot_command_the_terminal(fake, lines_of):
    made = fake.publish("train", {"dataset": {"name": "\x1b[2Jdigits\n"}})
    text = "\n".join(lines_of(print_artifact, made, fake.store))
    assert "\x1b" not in text
    assert r"\x1b[2Jdigits\n" in text


def test_without_unicode_the_drawing_is_ascii(fake):
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    print_share_map(fake.experiment()["prune-share"], fake.store, console(file))
    text = file.buffer.getvalue().decode("ascii")
    assert "> 1" in text
    assert "# 1.00 x2" in text


def test_heads_among_channels_are_called_heads():
    heads = tuple(f"blocks.0.attn.qkv.channels.{i}" for i in range(3))
    mixed = Channels.from_names((*heads, "blocks.0.mlp.fc1.channels.0"))
    assert mixed.title == "channels and attention heads"
    assert draw(mixed, 80)[-1].plain == "kept, of all; an attention counts its heads"
    assert Channels.from_names(heads).title == "attention heads"
    assert draw(Channels.from_names(("layer1.0.conv1.channels.0",)), 80)[-1].plain == "kept, of all"


def test_blocks_are_called_blocks_and_have_no_heads():
    drawn = Channels.from_names(tuple(f"blocks.0.attn.qkv.blocks.{i}" for i in range(3)))
    assert drawn.title == "blocks"
    assert draw(drawn, 80)[-1].plain == "kept, of all"


def test_show_begins_with_the_data_the_result_and_the_command(fake, lines_of):
    made = fake.experiment()["eval"]
    lines = lines_of(print_artifact, made, fake.store)
    titles = [line.split()[0] for line in lines[3:8]]
    assert titles == ["dataset", "accuracy", "size", "changed", "repeat"]
    assert any(line.split()[:4] == ["repeat", "with", "pear", "run"] for line in lines)


@pytest.mark.parametrize(
    ("costs", "said"),
    [
        ({"latency_p50_ms": 10.0, "latency_p95_ms": 12.0, "latency_load": 0.5}, False),
        ({"latency_p50_ms": 10.0, "latency_p95_ms": 12.0, "latency_load": 3.0}, True),
        ({"latency_p50_ms": 10.0, "latency_p95_ms": 50.0}, True),
        ({}, False),
    ],
)
def test_a_latency_of_a_busy_machine_says_so(fake, lines_of, costs, said):
    made = fake.publish("checkpoint", {}, accounting=costs)
    text = "\n".join(lines_of(print_artifact, made, fake.store))
    assert ("busy machine" in text) is said


@pytest.mark.parametrize("value", [None, "many", [], True])
def test_an_evaluation_without_numbers_is_shown_all_the_same(fake, lines_of, value):
    metrics = {} if value is None else {"accuracy": value, "images": value}
    made = fake.publish(
        "eval", {"dataset": value, "seed": []}, metrics=metrics, accounting={"stored_bytes": value}
    )
    assert lines_of(print_artifact, made, fake.store)[0] == f"eval {made.key}"
