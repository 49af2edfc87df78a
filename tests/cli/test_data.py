"""pear data: which datasets are there, fetch one, check one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    monkeypatch.setenv("PEAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PEAR_DATA", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "my photos"
    for part, count in (("train", 5), ("test", 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                picture(root / part / name / f"{number}.png")
    return root


def of(root):
    return "dataset=imagefolder", f"dataset.root='{root}'"


def test_ls_says_of_every_preset_what_is_there_or_where_it_comes_from(pear, tmp_path):
    said = pear("data", "ls", "--json")
    rows = {row["dataset"]: row for row in map(json.loads, said.out.splitlines())}
    assert said.code == 0
    assert len(rows) >= 20
    assert rows["digits"]["present"]
    assert rows["digits"]["classes"] == 10
    assert rows["digits"]["splits"]["test"]["images"] == 797
    cifar = rows["cifar100"]
    assert not cifar["present"]
    assert cifar["source"].startswith("https://www.cs.toronto.edu")
    assert cifar["places"] == [str(tmp_path / "home" / "cifar-100-python")]
    table = pear("data", "ls")
    assert len(table.out.splitlines()) == len(rows) + 1
    assert f"lie in {tmp_path / 'home'}" in table.err


def test_ls_does_not_load_torch(tmp_path):
    code = (
        "import sys; from pear_cli.cli.app import perform; code = perform(['data', 'ls']); "
        "print(code, sorted({'torch', 'timm', 'torchvision', 'datasets'} & {*sys.modules}), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr.splitlines()[-1] == "0 []"


def test_ls_shows_every_vtab_task_that_is_there(pear, tmp_path):
    for task in ("dtd", "svhn"):
        (tmp_path / "home" / "vtab-1k" / task).mkdir(parents=True)
        (tmp_path / "home" / "vtab-1k" / task / "test.txt").write_text("images/0.png 0\n")
    assert "vtab/dtd" in (out := pear("data", "ls").out)
    assert "vtab/svhn" in out
    assert out.count("not read yet: pear data prepare") == 2


def test_prepare_prints_what_each_split_has_and_ls_remembers_it(pear, photos):
    assert "not read yet" in pear("data", "ls", *of(photos)).out
    said = pear("data", "prepare", *of(photos))
    assert said.code == 0
    rows = [line.split("\t") for line in said.out.splitlines()]
    assert [row[:3] for row in rows] == [
        ["train800", "8", "2"],
        ["val200", "2", "2"],
        ["train800val200", "10", "2"],
        ["test", "4", "2"],
    ]
    assert all(len(row[3]) == 64 for row in rows)
    record = json.loads(pear("data", "prepare", *of(photos), "--json").out)
    assert record == json.loads(pear("data", "ls", *of(photos), "--json").out)
    assert record["splits"]["test"] == {"images": 4, "fingerprint": rows[3][3]}
    assert "not read yet" not in pear("data", "ls", *of(photos)).out


def test_verify_prints_nothing_but_what_is_wrong_and_exits_with_one(pear, photos):
    said = pear("data", "verify", *of(photos))
    assert (said.code, said.out) == (0, "")
    assert "14 images decoded, nothing is wrong" in said.err
    (photos / "test" / "cat" / "0.png").write_bytes(b"")
    (photos / "test" / "dog" / "1.png").write_bytes((photos / "train" / "dog" / "1.png").read_bytes())
    said = pear("data", "verify", *of(photos))
    assert said.code == 1
    assert [line.split("\t")[:3] for line in said.out.splitlines()] == [
        ["unreadable", "test", "test/cat/0.png"],
        ["duplicate", "test", "test/dog/1.png"],
    ]
    record = json.loads(pear("data", "verify", *of(photos), "--json").out)
    assert [problem["kind"] for problem in record["problems"]] == ["unreadable", "duplicate"]


def test_what_is_allowed_is_told_and_does_not_fail(pear, photos):
    (photos / "test" / "dog" / "1.png").write_bytes((photos / "train" / "dog" / "1.png").read_bytes())
    said = pear("data", "verify", *of(photos), "--allow", "duplicate")
    assert (said.code, said.out) == (0, "")
    assert "duplicate (allowed): test/dog/1.png" in said.err
    said = pear("data", "verify", *of(photos), "--allow", "duplicates")
    assert said.code == 2
    assert 'did you mean "duplicate"' in said.err


def test_a_dataset_that_is_not_there_is_an_error_that_names_the_place(pear, tmp_path):
    said = pear("data", "prepare", "dataset=vtab", "dataset.task=dtd")
    assert (said.code, said.out) == (1, "")
    assert f"{tmp_path / 'home' / 'vtab-1k'} is missing" in said.err
    said = pear("data", "verify", "dataset=cifar100", "dataset.download=false")
    assert said.code == 1
    assert said.out.startswith("missing\t")


def test_wrong_words_are_usage_errors_or_name_the_setting(pear):
    assert pear("data").code == 2
    assert pear("data", "list").code == 2
    said = pear("data", "prepare", "dataset=cifar1000")
    assert (said.code, 'did you mean "cifar100"' in said.err) == (1, True)
    said = pear("data", "prepare", "dataset.rot=x")
    assert (said.code, "dataset.root" in said.err or "root" in said.err) == (1, True)


def test_arguments_of_timm_need_no_plus(pear, photos):
    words = ("dataset=timm", "dataset.name=folder", f"dataset.root='{photos}'", "dataset.test_part=test")
    assert pear("data", "prepare", *words).out.startswith("train800\t8\t2\t")
    said = pear("data", "prepare", *words, "dataset.args.seed=1")
    assert (said.code, "dataset.args.seed is refused" in said.err) == (1, True)


def test_verify_ends_at_once_when_it_is_interrupted(photos):
    for number in range(3000):
        os.link(photos / "train" / "cat" / "0.png", photos / "train" / "cat" / f"more{number}.png")
    command = [sys.executable, "-m", "pear_cli", "data", "verify", *of(photos)]
    root = Path(__file__).parent.parent.parent
    code = "import signal, sys, runpy; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "import pear_cli.data.verify as f; decode = f._decoder; import time; "
    code += "f._decoder = lambda *a: (time.sleep(0.01), print('begun', file=sys.stderr, flush=True), "
    code += "lambda row: time.sleep(0.01) or decode(*a)(row))[2]; from pear_cli.cli.app import main; main()"
    command[1:3] = ["-c", code]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=root) as process:
        assert process.stderr.readline() == "begun\n"
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(20)
        assert process.returncode == 130
        assert time.monotonic() - start < 10


def test_prepare_names_all_that_is_wrong_at_once(pear, photos):
    (photos / "train" / "ant").mkdir()
    (photos / "test" / "cat" / "gone.png").symlink_to(photos / "nowhere.png")
    said = pear("data", "prepare", *of(photos))
    assert (said.code, said.out) == (1, "")
    assert "3 things are wrong with imagefolder\n" in said.err
    assert all(f"\n{name}: " in said.err for name in ("train/ant", "ant", "test/cat/gone.png"))


def test_a_run_says_which_settings_of_pruning_have_no_effect(pear, quiet):
    flags = ("--config-dir", str(Path(__file__).parent.parent / "configs"), "backbone=tiny", "optim.epochs=1")
    said = pear("run", *quiet, *flags, "method=linear", "prune.ratio=0.75", "knowledge=int8", "seed=1")
    assert said.code == 0
    assert "then eval; without effect: prune.ratio=0.75 knowledge=int8\n" in said.err


@pytest.mark.parametrize("name", ["it's", "${seed}", "1e3", "a ${seed} b"])
def test_a_folder_of_any_name_is_found(pear, photos, name):
    root = photos.rename(photos.with_name(name))
    said = pear("data", "prepare", "dataset=imagefolder", f"dataset.root={root}")
    assert (said.code, said.out.splitlines()[-1].split("\t")[:3]) == (0, ["test", "4", "2"])


def test_a_task_that_looks_like_a_number_is_text_and_a_list_of_presets_is_refused(pear, photos):
    said = pear("data", "prepare", "dataset=vtab", f"dataset.root='{photos}'", "dataset.task=12e3")
    assert "no task '12e3'" in said.err
    said = pear("data", "prepare", "dataset=[digits,mnist5k]")
    assert said.code == 1
    assert "takes the name of one preset; to run several, add -m and write dataset=digits,mnist5k" in said.err
