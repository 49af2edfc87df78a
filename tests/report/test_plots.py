import re

import pytest

from pear_cli.errors import ConfigError, MissingArtifact
from pear_cli.report.analysis.comparison import compare
from pear_cli.report.analysis.listing import rows
from pear_cli.report.analysis.pruned import Sites
from pear_cli.report.charts import artifact, curves, heat, render
from pear_cli.report.charts.artifact import KINDS
from pear_cli.report.charts.frontier import LEGEND, compared, front, pareto, ratios
from pear_cli.report.charts.plot import plot
from pear_cli.report.charts.style import PAPER, finished

SITES = ("blocks.0.attn.q", "blocks.1.attn.q")
MAGIC = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<svg"}


@pytest.mark.parametrize("form", MAGIC)
def test_a_share_map_is_drawn_into_a_file_of_each_format(pear, finished, form):
    key = finished.made["eval"].key
    said = pear("plot", "share-map", key, "--out", f"new/map.{form}", "--store", str(finished.store.root))
    assert (said.code, said.out) == (0, f"new/map.{form}\n"), said.err
    with open(f"new/map.{form}", "rb") as file:
        assert file.read(4).startswith(MAGIC[form])


@pytest.mark.parametrize("kind", KINDS)
def test_every_plot_of_an_evaluation_has_marks(finished, tmp_path, kind):
    text = plot(kind, [finished.made["eval"].key], finished.store, tmp_path / "x.svg", "A title").decode()
    assert "A title" in text
    marks = r'aria-label="[^"]*" role="graphics-symbol" aria-roledescription="(?!axis|legend)'
    assert len(re.findall(marks, text)) >= 3


def test_an_artifact_without_such_a_plot_says_what_it_has(finished, tmp_path):
    with pytest.raises(MissingArtifact, match="has no confusion to draw; it has: curves, importance"):
        plot("confusion", [finished.made["score"].key], finished.store, tmp_path / "x.svg")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["importanse", "--out", "x.png"], 2, 'did you mean "importance"'),
        (["importance", "--out", "x.png"], 2, "needs an artifact"),
        (["pareto", "--out", "x.jpg"], 1, "end the name in .png, .svg, .pdf"),
        (["pareto", "--out", "x.png"], 1, "no evaluations to draw"),
    ],
)
def test_a_wrong_plot_is_one_line(pear, words, code, says):
    said = pear("plot", *words)
    assert said.code == code
    assert says in said.err
    assert len(said.err.splitlines()) == 1


def test_one_plot_is_of_one_dataset(fake, tmp_path):
    fake.experiment("digits")
    fake.experiment("mnist5k")
    with pytest.raises(ConfigError, match="add dataset=digits"):
        plot("pareto", [], fake.store, tmp_path / "x.svg")


def test_the_front_has_what_nothing_of_its_size_or_smaller_surpasses(fake, monkeypatch):
    sizes = {0.25: (300, 0.9), 0.5: (200, 0.8), 0.75: (100, 0.8), 0.9: (400, 0.85)}
    for ratio, (size, accuracy) in sizes.items():
        monkeypatch.setitem(fake.publish.__func__.__globals__["COSTS"], "stored_bytes", size)
        fake.experiment(ratio=ratio, accuracy=accuracy)
    assert [line.ratio for line in front(compare(rows(fake.store)))] == [0.75, 0.25]


def test_what_is_of_another_protocol_is_hollow_and_no_part_of_the_front(fake):
    fake.experiment(accuracy=0.8)
    fake.experiment(ratio=0.25, accuracy=0.8)
    fake.experiment(accuracy=0.99, normalization="half")
    lines = compare(rows(fake.store))
    assert [line.accuracy.mean for line in front(lines)] == [0.8]
    records = pareto(lines, PAPER)["layer"][-1]["data"]["values"]
    assert [record["apart"] for record in records] == [record["accuracy"] == 99 for record in records]


def test_texts_of_strangers_are_text_in_a_plot():
    names = ["<script>alert(1)</script>", "'];alert(2)//", "javascript:alert(3)"]
    spec = heat.confusion([[3, 1, 0], [0, 4, 0], [1, 0, 2]], names, PAPER)
    text = render.inline(finished(spec, PAPER))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "href" not in text


def test_hundreds_of_classes_make_no_table():
    assert heat.confusion([[0] * 100] * 100, [str(i) for i in range(100)], PAPER) is None


def test_links_lead_to_rows_of_the_page(fake):
    fake.experiment()
    text = render.inline(finished(pareto(compare(rows(fake.store)), PAPER), PAPER))
    assert re.findall(r'href="([^"]*)"', text) == ["#row-0"]


@pytest.mark.parametrize("rules", [3, 14])
def test_ratios_are_true_and_a_legend_names_what_it_has_room_for(fake, rules):
    fake.experiment(ratio=0, rule="none", kind="none")
    for number in range(rules):
        fake.experiment(ratio=0.75, rule=f"rule{number}")
    layers = ratios(compare(rows(fake.store)), PAPER)["layer"]
    assert {record["ratio"] for record in layers[-1]["data"]["values"]} == {75}
    shape = layers[-1]["encoding"].get("shape")
    assert (shape is not None) == (rules <= LEGEND)
    dashed = layers[0]["encoding"]["color"]["legend"]
    assert dashed is None or "lora · dense" in dashed["values"]


def test_many_baselines_are_left_out(fake):
    for task in "abcd":
        fake.experiment(ratio=0, rule="none", kind="none", weights=task * 64)
        fake.experiment(weights=task * 64)
    lines = compare(rows(fake.store))
    assert len(compared(lines)) == 4
    assert ratios(lines, PAPER)["layer"][0]["data"]["values"] == []


@pytest.mark.parametrize(
    ("epochs", "ticks"),
    [(1, [1]), (2, [1, 2]), (8, [*range(1, 9)]), (30, [*range(5, 31, 5)]), (100, [*range(20, 101, 20)])],
)
def test_ticks_are_whole_epochs(epochs, ticks):
    spec = curves.learning({"seed 0": [[{"train_loss": 1.0}] * epochs]}, PAPER)
    assert spec["vconcat"][0]["layer"][0]["encoding"]["x"]["axis"]["values"] == ticks


def test_the_caption_of_a_share_map_without_sharing_does_not_say_who_serves(monkeypatch):
    monkeypatch.setattr(artifact.pruned, "from_lineage", lambda _: Sites(SITES, owners=dict.fromkeys(SITES)))
    assert "nothing serves there" in (caption := artifact.share_map(None, PAPER).caption)
    assert "served by" not in caption


def test_the_axis_of_accuracy_is_as_wide_as_one_seed_leaves_open(fake):
    for seed, (rule, accuracy) in enumerate((("none", 0.9), ("ranked", 0.902))):
        fake.experiment(rule=rule, kind="none", accuracy=accuracy, seed=seed)
    lines = compare(rows(fake.store))
    for chart in (pareto(lines, PAPER), ratios(lines, PAPER)):
        spread, marks = chart["layer"][-2:]
        low, high = marks["encoding"]["y"]["scale"]["domain"]
        assert low <= 100 * (0.9 - lines[0].noise) + 0.01
        assert high >= 100 * (0.902 + lines[1].noise) - 0.01
        for record in spread["data"]["values"]:
            assert record["high"] - record["low"] == pytest.approx(200 * lines[0].noise, rel=0.02)
            assert "of the test set" in record["said"]
