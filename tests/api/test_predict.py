"""Labels for image files."""

import csv
import io
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from pear_cli.api import predict as predicting
from pear_cli.api.predict import predict
from pear_cli.data.loading import load
from pear_cli.data.preparation import Preparation
from pear_cli.errors import ConfigError
from pear_cli.export.writing import export
from pear_cli.stages.perform import perform


@pytest.fixture
def run(finished):
    """Run predict; return exit code, lines of stdout, lines of stderr."""

    def call(*files, source=None, stdin="", **options):
        out, err = io.StringIO(), io.StringIO()
        source = source or finished.made["eval"].path
        runtime = finished.experiment.runtime
        streams = {"out": out, "err": err, "stdin": io.StringIO(stdin)}
        code = predict(source, [str(file) for file in files], runtime, **streams, **options)
        return code, out.getvalue().splitlines(), err.getvalue().splitlines()

    return call


@pytest.fixture
def pictures(finished, tmp_path):
    """Six test images as lossless files of the model's size, in a folder with a folder."""
    images = load(finished.experiment.dataset, "test", Preparation(16))
    for i, folder in enumerate(("", "", "", "", "more", "others")):
        place = tmp_path / "digits" / folder / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.pixels[i]).save(place)
    (tmp_path / "digits" / "notes.txt").write_text("no image")
    return tmp_path / "digits"


def test_predictions_are_those_of_the_evaluation(finished, run, pictures):
    code, lines, err = run(pictures, form="json", topk=10)
    logits = finished.made["eval"].tensors("predictions")["logits"][:6]
    assert (code, err) == (0, [])
    for line, expected in zip(map(json.loads, lines), logits.softmax(-1), strict=True):
        found = {int(p["label"]): p["probability"] for p in line["predictions"]}
        torch.testing.assert_close(
            torch.tensor([found[i] for i in range(10)]), expected, atol=2e-6, rtol=1e-5
        )
        assert list(found.values()) == sorted(found.values(), reverse=True)


def test_a_folder_is_searched_in_sorted_order(run, pictures):
    _, lines, _ = run(pictures, topk=1)
    names = [os.path.relpath(line.split("\t")[0], pictures) for line in lines]
    assert names == ["0.png", "1.png", "2.png", "3.png", "more/4.png", "others/5.png"]


def test_a_line_is_path_then_label_and_probability(run, pictures):
    _, (line,), _ = run(pictures / "0.png", topk=3)
    path, *pairs = line.split("\t")
    assert path == str(pictures / "0.png")
    assert len(pairs) == 6
    assert 0 <= float(pairs[1]) <= 1


def test_topk_is_at_most_the_number_of_classes_and_at_least_1(run, pictures):
    _, (line,), _ = run(pictures / "0.png", topk=99)
    assert len(line.split("\t")) == 21
    with pytest.raises(ConfigError, match="topk"):
        run(pictures, topk=0)


def test_a_list_of_files_comes_from_stdin(run, pictures):
    stdin = f"{pictures / '1.png'}\n\n{pictures / '0.png'}\n"
    _, lines, _ = run("-", stdin=stdin, topk=1)
    assert [line.split("\t")[0] for line in lines] == [str(pictures / "1.png"), str(pictures / "0.png")]


def test_bad_images_are_named_and_the_others_go_on(run, pictures, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    bad = [tmp_path / "broken.png", tmp_path / "absent.png", tmp_path / "empty", tmp_path / "pipe.png"]
    code, lines, err = run(*bad, pictures / "0.png")
    assert code == 1
    assert len(lines) == 1
    assert len(err) == 4
    for path, line in zip(bad, err, strict=True):
        assert line.startswith("pear predict: ")
        assert str(path) in line


def test_results_come_batch_by_batch(pictures):
    read = []

    class Lines:
        def __iter__(self):
            for i in (0, 1, 2, 3, 0):
                read.append(i)
                yield f"{pictures / f'{i}.png'}\n"

    batches = predicting._batches(predicting._expand(["-"], Lines()), lambda path: [torch.zeros(1)], 4)
    names, pixels, failures = next(batches)
    assert (len(names), len(pixels), failures, read) == (4, 4, [], [0, 1, 2, 3])
    assert len(next(batches)[0]) == 1


def test_images_of_any_size_and_mode_are_taken(run, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (31, 70, 4), dtype=np.uint8)
    for mode in ("L", "RGB", "RGBA", "CMYK"):
        Image.fromarray(noise, "RGBA" if mode == "RGBA" else None).convert(mode).save(
            tmp_path / f"{mode}.tif"
        )
    code, lines, _ = run(tmp_path)
    assert (code, len(lines)) == (0, 4)


def test_an_exported_file_predicts_the_same(finished, run, pictures, tmp_path):
    file = export(finished.made["adapt"].path, tmp_path / "model.safetensors")
    assert run(pictures, source=file) == run(pictures)


def test_a_key_predicts_with_its_store(finished, run, pictures):
    assert run(pictures, source=finished.made["eval"].key[:12], store=finished.store) == run(pictures)


def test_a_name_with_a_tab_cannot_break_the_columns(run, pictures, tmp_path):
    strange = tmp_path / "a\tb\x1b[2J.png"
    strange.write_bytes((pictures / "0.png").read_bytes())
    _, (line,), _ = run(strange, topk=1)
    assert line.count("\t") == 2
    assert line.startswith(str(tmp_path / r"a\tb\x1b[2J.png"))
    _, (line,), _ = run(strange, topk=1, form="json")
    assert json.loads(line)["path"] == str(strange)


def test_a_name_that_is_no_utf8_is_written_all_the_same(run, pictures, tmp_path):
    strange = os.path.join(os.fsencode(tmp_path), b"\xff.png")
    with open(strange, "wb") as file:
        file.write((pictures / "0.png").read_bytes())
    _, (line,), _ = run(os.fsdecode(strange), topk=1)
    line.encode()
    _, (line,), _ = run(os.fsdecode(strange), topk=1, form="json")
    line.encode()


def test_csv_has_a_header_and_no_formula(run, pictures, tmp_path, monkeypatch):

    strange = tmp_path / "=1+1,2.png"
    (pictures / "0.png").rename(strange)
    monkeypatch.chdir(tmp_path)
    code, lines, _ = run("=1+1,2.png", form="csv", topk=2)
    header, row = csv.reader(lines)
    assert code == 0
    assert header == ["path", "label_1", "probability_1", "label_2", "probability_2"]
    assert row[0] == "'=1+1,2.png"
    _, (line,), _ = run("=1+1,2.png", form="tsv", topk=2)
    assert row[1:] == line.split("\t")[1:]


@pytest.mark.parametrize("form", ["tsv", "csv", "json"])
def test_several_models_label_each_image_in_one_pass(finished, run, pictures, form):
    adapt, dense = (str(finished.made[step].path) for step in ("adapt", "train"))
    code, lines, err = run(pictures, source=adapt, also=[dense], topk=2, form=form)
    assert (code, err) == (0, [])
    alone = [run(pictures, source=model, topk=2, form="tsv")[1] for model in (adapt, dense)]
    if form == "csv":
        assert lines.pop(0).split(",") == [
            "path",
            "model",
            "label_1",
            "probability_1",
            "label_2",
            "probability_2",
        ]
    assert len(lines) == 12
    for number, line in enumerate(lines):
        expected = alone[number % 2][number // 2].split("\t")
        model = (adapt, dense)[number % 2]
        if form == "json":
            said = json.loads(line)
            assert (said["path"], said["model"]) == (expected[0], model)
            assert [p["label"] for p in said["predictions"]] == expected[1::2]
        else:
            path, named, *cells = line.split("\t") if form == "tsv" else next(csv.reader([line]))
            assert (path, named, cells[::2]) == (expected[0], model, expected[1::2])
            for probability, other in zip(cells[1::2], expected[2::2], strict=True):
                assert abs(float(probability) - float(other)) <= 1e-4


def test_models_of_one_pass_are_named_once_and_share_a_backbone(
    finished, run, pictures, make, store, tmp_path
):
    path = finished.made["eval"].path
    with pytest.raises(ConfigError, match="is named twice"):
        run(pictures, source=path, also=[str(path)])
    other = perform("train", make(backbone__seed=1), store).artifact
    with pytest.raises(ConfigError, match="has other frozen tensors"):
        run(pictures, source=path, also=[str(other.path)])
