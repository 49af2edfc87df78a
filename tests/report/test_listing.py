import json
import re
import shutil
import subprocess
import sys

import pytest

from pear_cli.backbone.identity import weights_hash
from pear_cli.config.settings import Backbone
from pear_cli.errors import ConfigError, StoreError
from pear_cli.experiment.lineage import Lineage
from pear_cli.report.analysis.listing import groups, json_lines, row, rows
from pear_cli.report.analysis.protocol import notes
from pear_cli.report.terminal.show import summary
from pear_cli.report.terminal.table import print_closing, print_listing
from pear_cli.store.artifact import Artifact


def test_the_row_of_an_evaluation_shows_what_was_trained_pruned_and_shared(fake):
    made = fake.experiment()
    shown = row(made["eval"], fake.store)
    expected = {"dataset": "digits", "method": "lora", "prune": 0.5, "share": "ranked", "knowledge": "frozen"}
    expected |= {"seed": 0, "method.rank": 8, "dataset.test_split": "test"}
    expected |= {"optim.epochs": 4, "optim.adapt_epochs": 6, "seconds": 12.0}
    assert {key: shown.value(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"ratio": 0, "rule": "none", "kind": "none"}, "dense"),
        ({"dense_only": True}, "dense, before pruning"),
        ({"rule": "none", "kind": "none"}, "prune only"),
        ({"kind": "none"}, "prune + share"),
        ({}, "prune + share + knowledge"),
        ({"rule": "none"}, "prune + knowledge"),
    ],
)
def test_a_label_says_what_was_done(fake, changes, label):
    assert row(fake.experiment(**changes)["eval"], fake.store).lineage.label == label


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (["dataset=digits"], 6),
        (["dataset=DIGITS", "stage=eval"], 1),
        (["stage=eval"], 2),
        (["stage=eval", "prune.ratio>=0.5"], 1),
        (["stage=eval", "prune.ratio<0.5"], 1),
        (["stage!=eval"], 10),
        (["stage=adapt"], 2),
        (["stage=train"], 4),
        (["stage!=adapt"], 10),
        (["stage!=train"], 8),
        (["stage=Train", "stage!=adapt"], 2),
        (["stage=eval", "knowledge=none"], 1),
        (["stage=eval", "knowledge!=frozen"], 1),
        (["knowledge=none"], 3),
        (["knowledge.kind=none"], 3),
        (["knowledge!=none"], 3),
        (["share!=none"], 4),
        (["method.slots=attn.q,attn.v", "stage=eval"], 2),
        (["method.slots=[attn.q,attn.v]", "stage=eval"], 2),
        (["accuracy > 0.85", "stage=eval"], 1),
        (["created>=2020-01-01"], 12),
        (["seed=1.0", "stage=eval"], 1),
        (["label=prune + share", "stage=eval"], 0),
        (["images>=797"], 2),
    ],
)
def test_filters_choose_rows(fake, filters, count):
    fake.experiment()
    fake.experiment("mnist5k", seed=1, ratio=0.25, kind="none", rule="none", accuracy=0.8)
    assert len(rows(fake.store, filters)) == count


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prune.ration=0.5", 'filter "prune.ration" is unknown; did you mean "prune.ratio"?'),
        ("datset=digits", 'filter "datset" is unknown; did you mean "dataset"?'),
        ("digits", 'filter "digits" is not understood: write it as'),
        ("", 'filter "" is not understood: write it as'),
        ("prune.ratio>half", 'filter "prune.ratio>half": > needs a number'),
        ("accuracy>50", 'filter "accuracy>50": accuracy is a share; write 50'),
        ("stage=evl", 'stage = "evl" is unknown; did you mean "eval"? use train, score, '),
        ("stage!=dense", 'stage = "dense" is unknown; use train, '),
        ("knowledge=frosen", 'knowledge.kind = "frosen" is unknown; did you mean "frozen"? use none, '),
        ("share.rule=null", 'share.rule = "null" is unknown'),
        ("dataset.normalization=", 'dataset.normalization = "" is unknown; use imagenet, '),
        ("select=best", 'select = "best" is unknown'),
    ],
)
def test_a_wrong_filter_is_an_error_with_a_remedy_even_in_an_empty_store(fake, text, says):
    for _ in ("empty", "filled"):
        with pytest.raises(ConfigError, match=f"^{re.escape(says)}"):
            rows(fake.store, [text])
        fake.experiment()


def test_a_value_that_pear_no_longer_has_is_found_where_an_artifact_has_it(fake):
    fake.experiment(rule="former")
    assert len(rows(fake.store, ["share=former"])) == 4


def test_a_dataset_of_several_tasks_is_shown_and_found_with_its_task(fake, lines_of):
    for task in ("dtd", "svhn"):
        fake.experiment("vtab", task=task)
    title, *lines = lines_of(print_listing, rows(fake.store))
    assert [sum(f" vtab/{task} " in line for line in lines) for task in ("dtd", "svhn")] == [6, 6]
    assert "task" not in title
    closing = lines_of(print_closing, rows(fake.store, ["stage=eval"]))
    assert [line.split()[0] for line in closing[:3]] == ["dataset", "vtab/dtd", "vtab/svhn"]
    found = [len(rows(fake.store, [f"dataset{rest}"])) for rest in ("=vtab", "=vtab/dtd", ".task=dtd")]
    assert found == [12, 6, 6]


def test_evaluations_that_differ_only_in_their_seed_are_one_group(fake):
    for seed, accuracy in enumerate((0.90, 0.92, 0.94)):
        fake.experiment(seed=seed, accuracy=accuracy)
    fake.experiment(seed=0, ratio=0.75)
    evaluations = rows(fake.store, ["stage=eval"])
    assert sorted(len(group.rows) for group in groups(evaluations)) == [1, 3]
    assert len(groups(rows(fake.store, ["stage=train"]))) == 8


def test_the_same_seed_twice_is_no_second_seed(fake):
    fake.experiment(accuracy=0.90)
    fake.experiment(accuracy=0.90)
    assert [len(group.rows) for group in groups(rows(fake.store, ["stage=eval"]))] == [1, 1]


def test_evaluations_whose_inputs_are_gone_are_not_grouped(fake):
    first, second = fake.experiment(seed=0), fake.experiment(seed=1)
    for made in (first, second):
        shutil.rmtree(made["train"].path)
    evaluations = rows(fake.store, ["stage=eval"])
    assert [len(group.rows) for group in groups(evaluations)] == [1, 1]
    assert "lost inputs" in notes(row.lineage for row in evaluations)[-1]


def test_the_listing_shows_mean_spread_and_number_of_seeds(fake, lines_of):
    for seed, accuracy in enumerate((0.90, 0.92, 0.94)):
        fake.experiment(seed=seed, accuracy=accuracy)
    (line,) = [line for line in lines_of(print_listing, rows(fake.store)) if line.startswith("eval")]
    assert "92.00 ± 4.97 (n=3)" in line
    assert "26.1k" in line
    assert "102 KiB" in line


def test_a_protocol_that_differs_is_noted_under_the_table(fake, lines_of):
    fake.experiment()
    assert not notes(row.lineage for row in rows(fake.store))
    fake.experiment(normalization="half", select="test_oracle", weights="b" * 64)
    lines = lines_of(print_listing, rows(fake.store))
    (oracle, differ) = [line for line in lines if line.startswith("note: ")]
    assert "chosen on the test set" in oracle
    assert "evaluations of digits are not comparable: " in differ
    assert "dataset.normalization (backbone, half)" in differ
    assert "select (last, test_oracle)" in differ
    assert "frozen weights (aaaaaaaa, bbbbbbbb)" in differ
    assert sum("test_oracle" in line for line in lines if line.startswith("eval")) == 1


def test_evaluations_of_other_datasets_need_not_agree(fake):
    fake.experiment(dataset="digits")
    fake.experiment(dataset="mnist5k", normalization="half")
    assert not notes(row.lineage for row in rows(fake.store))


def test_the_accuracy_that_weighs_classes_equally_is_shown_where_a_benchmark_reports_it(fake, lines_of):
    fake.experiment(accuracy=0.9)
    assert "per class %" not in lines_of(print_listing, rows(fake.store))[0]
    fake.experiment(dataset="pets", accuracy=0.8, metric="mean_per_class_accuracy")
    lines = lines_of(print_listing, rows(fake.store))
    assert "per class %" in lines[0]
    assert ["90.00" in line and "80.00" in line for line in lines if line.startswith("eval")] == [True, False]


def test_at_80_columns_the_listing_leaves_columns_out_and_says_which(fake, lines_of):
    for seed, accuracy in enumerate((0.90, 0.92, 0.94)):
        fake.experiment(seed=seed, accuracy=accuracy, select="test_oracle")
    lines = lines_of(print_listing, rows(fake.store), width=80)
    assert max(len(line) for line in lines) <= 80
    assert any(line.startswith("not shown at this width: ") for line in lines)
    assert any(line.startswith("in every row: ") and "select test_oracle" in line for line in lines)
    whole = lines_of(print_listing, rows(fake.store))
    assert not any("not shown" in line for line in whole)


def test_json_has_all_that_a_comparison_needs(fake):
    made = fake.experiment(normalization="half")
    value = json.loads(*json_lines(rows(fake.store, ["stage=eval"])))
    protocol = {"dataset.normalization": "half", "select": "last", "frozen weights": "a" * 8}
    assert protocol.items() <= value["protocol"].items()
    assert value["key"] == made["eval"].key
    assert value["config"]["method"]["rank"] == 8
    assert value["config"]["prune"] == {"ratio": 0.5, "by": "count"}
    assert value["metrics"]["accuracy"] == 0.9
    assert value["accounting"]["stored_bytes"] == 104_448
    assert value["environment"]["torch"] == "2"
    assert value["provenance"]["weights"] == "a" * 64
    assert value["seed"] == 0
    assert value["missing_inputs"] == []


def test_a_damaged_manifest_is_reported_and_the_others_are_listed(fake):
    made = fake.experiment()
    (made["score"].path / "manifest.json").write_text("{")
    told = []
    listed = rows(fake.store, on_error=lambda path, error: told.append(path))
    assert len(listed) == 5
    assert told == [made["score"].path]


def test_the_closing_table_sets_accuracy_beside_cost(fake, lines_of):
    given = ({"dense_only": True, "accuracy": 0.95}, {"rule": "none", "kind": "none"}, {})
    made = [fake.experiment(**each) for each in given]
    lines = lines_of(print_closing, [row(m["eval"], fake.store) for m in made])
    assert lines[0].split() == ["model", "pruned", "accuracy", "%", "trained", "stored", "on", "disk", "time"]
    assert lines[1].startswith("dense, before pruning")
    assert lines[2].startswith("prune only")
    assert lines[3].startswith("prune + share + knowledge  2/4")
    assert "not multiply-accumulates" in lines[4]
    alone = lines_of(print_closing, [row(m["eval"], fake.store) for m in made[:2]])
    assert not any("not multiply-accumulates" in line for line in alone)  # nothing is shared


def test_the_closing_table_has_the_size_of_networks_without_their_channels(fake, lines_of):
    narrow = {"network_params": 1_200_000, "whole_network_params": 3_400_000}
    made = fake.publish("eval", {"phase": "shared"}, accounting=narrow)
    lines = lines_of(print_closing, [row(a, fake.store) for a in (made, fake.experiment()["eval"])])
    assert "network" in lines[0]
    assert "1.2M of 3.4M" in lines[1]


def test_the_closing_table_takes_evaluations_only(fake, lines_of):
    with pytest.raises(StoreError, match="needs evaluations"):
        lines_of(print_closing, [row(fake.experiment()["train"], fake.store)])


def test_rows_that_would_look_the_same_show_the_setting_that_tells_them_apart(fake, lines_of):
    fake.experiment(dense_only=True, accuracy=0.7)
    fake.experiment(dense_only=True, accuracy=0.8, normalization="imagenet")
    header, *lines = lines_of(print_listing, rows(fake.store, ["stage=eval"]))
    assert "normalization" in header
    assert ["imagenet" in line for line in lines[:2]].count(True) == 1


def test_each_manifest_is_read_once_however_many_there_are(fake, monkeypatch):
    for seed in range(5):
        fake.experiment(seed=seed)
    read = []
    at = Artifact.at
    monkeypatch.setattr(Artifact, "at", lambda path, name=None: read.append(path) or at(path, name))
    assert len(rows(fake.store)) == len(read) == len(set(read)) == 30


def test_listing_needs_no_torch():
    program = "import sys; from pear_cli.report.terminal import show, table; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_circle_of_inputs_ends(fake):
    made = fake.experiment()
    made["train"].manifest["inputs"]["checkpoint"] = made["checkpoint"].key
    there = {(artifact.stage, artifact.key): artifact for artifact in made.values()}
    lineage = Lineage.from_artifact(made["eval"], lambda stage, key: there.get((stage, key)))
    assert len(lineage.all) == 6


RANDOM = "random-" + "b" * 64


def test_random_weights_are_marked_in_every_table(fake, lines_of):
    fake.experiment(seed=0)
    fake.experiment(dataset="mnist5k", weights=RANDOM)
    listed = rows(fake.store, ["stage=eval"])
    note = "* the weights of the frozen backbone are random: not a transfer result"
    listing, closing = lines_of(print_listing, listed), lines_of(print_closing, listed)
    assert ["lora*" in line for line in listing[:3]] == [False, False, True]
    assert ["+ knowledge*" in line for line in closing[:3]] == [False, False, True]
    assert note in listing
    assert note in closing


def test_the_weights_of_a_row_are_random_bundled_or_a_hash(fake):
    bundled = weights_hash(Backbone("vit_tiny_patch16_224", False, "pear_mini", 0, 0.0, None, None, {}))
    for weights in (RANDOM, bundled, "c" * 64):
        fake.experiment(weights=weights)
    found = {json.loads(line)["weights"] for line in json_lines(rows(fake.store, ["stage=eval"]))}
    assert found == {"random", "pear_mini", "c" * 64}
    assert len(rows(fake.store, ["stage=eval", "weights=random"])) == 1
    assert len(rows(fake.store, ["stage=eval", "weights=cccc"])) == 1


def in_rounds(fake):
    """Artifacts of two rounds of pruning, with the names of their steps."""
    dense = {"method": {"_target_": "pear_cli.adapters.lora.LoRA", "slots": ["attn.q"]}}
    trained = fake.publish("train", dense)
    made, before = {"train": trained}, {}
    for number in (1, 2):
        suffix = "" if number == 2 else f".{number}"
        score = fake.publish("score", {"score": {"criterion": "taylor"}}, {"train": trained, **before})
        prune = {"prune": {"ratio": 0.3 * number, "steps": 2}}
        share = fake.publish("prune-share", prune, {"score": score}, {"units": 4, "pruned": number})
        inputs = {"train": trained, "score": score, "prune-share": share}
        checkpoint = fake.publish("checkpoint", {"knowledge": {"kind": "none"}}, inputs)
        trained = fake.publish("train", {"phase": "shared"}, {"checkpoint": checkpoint})
        before = {"scored": score, "pruned": share}
        parts = {"score": score, "prune-share": share, "checkpoint": checkpoint, "adapt": trained}
        made |= {f"{name}{suffix}": artifact for name, artifact in parts.items()}
    made["eval"] = fake.publish("eval", {"phase": "shared"}, {"adapt": trained})
    return made


def test_rounds_of_pruning_have_their_number_in_the_list_and_in_show(fake):
    made = in_rounds(fake)
    named = {row.artifact.key: row.step for row in rows(fake.store)}
    for name, artifact in made.items():  # the first scores serve experiments of one round, too
        assert named[artifact.key] == {"score.1": "score"}.get(name, name)
    lines = [line.plain for line in summary(row(made["adapt.1"], fake.store).lineage)]
    assert lines[0].startswith("adapt.1 ")
    assert ", round 1 of 2; made " in lines[2]


def test_a_filter_by_stage_takes_a_round_or_all_of_them(fake):
    in_rounds(fake)
    assert [row.step for row in rows(fake.store, ["stage=adapt.1"])] == ["adapt.1"]
    assert {row.step for row in rows(fake.store, ["stage=adapt"])} == {"adapt.1", "adapt"}
    assert {row.step for row in rows(fake.store, ["stage=prune-share"])} == {"prune-share.1", "prune-share"}


BOTTLENECK = {"_target_": "pear_cli.adapters.bottleneck.Bottleneck", "rank": 4, "scale": 1.0, "dropout": 0.0}


@pytest.fixture
def bottlenecks(fake):
    """Trainings as `method=houlsby method.rank=4` and `method=pfeiffer` make them, and one of neither."""
    houlsby = BOTTLENECK | {"activation": "gelu", "bias": True, "slots": ["attn.proj", "mlp"]}
    pfeiffer = BOTTLENECK | {"activation": "relu", "bias": True, "slots": ["mlp"]}
    methods = {"houlsby": houlsby, "pfeiffer": pfeiffer, "neither": pfeiffer | {"activation": "gelu"}}
    backbone = {"name": "vit_base_patch16_224.orig_in21k", "args": {}}
    made = {name: fake.publish("train", {"method": m, "backbone": backbone}) for name, m in methods.items()}
    lora = {"_target_": "pear_cli.adapters.lora.LoRA"}
    fake.publish("train", {"method": lora, "backbone": {"name": "vit"}})
    return {artifact.key: name for name, artifact in made.items()}


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("method=houlsby", ["houlsby"]),
        ("method=pfeiffer", ["pfeiffer"]),
        ("method!=houlsby", ["lora", "neither", "pfeiffer"]),
        ("method=bottleneck", ["houlsby", "neither", "pfeiffer"]),
        ("method=lora", ["lora"]),
        ("method=adaptformer", []),
        ("backbone=vit_b16_in21k", ["houlsby", "neither", "pfeiffer"]),
        ("backbone=vit", ["lora"]),
    ],
)
def test_a_preset_is_a_filter_by_the_name_that_was_typed(fake, bottlenecks, condition, names):
    found = [bottlenecks.get(row.artifact.key, "lora") for row in rows(fake.store, [condition])]
    assert sorted(found) == names


def test_a_preset_of_score_is_what_it_changes(fake):
    units = ("head", "adapter")
    made = [fake.publish("score", {"score": {"criterion": "fisher", "unit": unit}}) for unit in units]
    assert [row.artifact.key for row in rows(fake.store, ["score=head"])] == [made[0].key]
    assert rows(fake.store, ["score=taylor"]) == []


def test_a_method_that_is_none_is_told_with_the_words_that_are(fake, bottlenecks):
    told = r'method = "houlsbi" is unknown; did you mean "houlsby"\? use adaptformer,'
    with pytest.raises(ConfigError, match=told):
        rows(fake.store, ["method=houlsbi"])


def test_a_line_of_several_seeds_has_them_all_and_the_number_of_further_keys(fake, lines_of):
    made = [fake.experiment(seed=seed)["eval"] for seed in (0, 1, 2, 7)]
    lines = lines_of(print_listing, [row(artifact, fake.store) for artifact in made])
    assert lines[1].split()[:3] == ["eval", made[-1].key[:8], "+3"]
    assert "0-2,7" in lines[1].split()
    assert any(line.startswith("+n: ") for line in lines)
    one = lines_of(print_listing, [row(made[0], fake.store)])
    assert not any("+" in line for line in one)


def test_a_task_in_a_folder_is_named_after_it(fake):
    made = fake.publish("train", {"dataset": {"name": "imagefolder"}}, environment={"task": "cats"})
    assert row(made, fake.store).value("dataset") == "cats"
    plain = fake.publish("train", {"dataset": {"name": "imagefolder"}})
    assert row(plain, fake.store).value("dataset") == "imagefolder"
