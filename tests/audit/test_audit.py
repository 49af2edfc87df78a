"""An audit passes what is sound, finds what is not, and says so as scripts and readers want it."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.lora import LoRA
from pear_cli.adapters.splopa import SPLoPA
from pear_cli.audit.finding import Finding, Verdict
from pear_cli.audit.perform import ROWS, audit
from pear_cli.backbone import backbones
from pear_cli.config.presets import config_dir
from pear_cli.config.settings import Backbone
from pear_cli.experiment.read import read
from pear_cli.launch.composing import composed
from pear_cli.model import merge as merging
from pear_cli.model import models
from pear_cli.report.terminal.checks import print_checks

CONFIGS = Path(__file__).parent.parent / "configs"
METHODS = sorted(path.stem for path in (config_dir() / "method").glob("*.yaml"))
TINY = ("backbone=tiny", "runtime.threads=1")
AT_START = ["identity", "called", "frozen"]
AT_WORK = ["gradients", "batch", "saved", "merged", "trained", "stored"]


def audited(*words: str) -> dict[str, Finding]:
    return dict(audit(read(composed([*TINY, *words], CONFIGS))))


def failed(found: dict[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.verdict is Verdict.failed}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_passes_but_one_that_looks_at_the_batch(method):
    node = composed([f"method={method}"]).method
    words = ["method.rank=4"] if "rank" in node and method != "splopa" else []
    words += ["method.block=[4,8]"] if method == "splopa" else []
    words += ["method.slots=[attn.qkv,mlp.fc1]"] if method == "sppara" else []  # it is of convolutions
    found = audited(f"method={method}", *words)
    assert failed(found) == ({"batch", "pruned: batch"} if method == "lily" else set())
    units = bool(node.slots)
    after = ["pruned", *(f"pruned: {name}" for name in AT_WORK)] if units else ["pruned"]
    assert list(found) == [*AT_START, *AT_WORK, *after]
    assert (found["identity"].value == 0) == (method not in ("splora", "sppara", "splopa"))
    assert (found["pruned"].verdict is Verdict.none) == (not units)
    assert all(finding.meaning for finding in found.values())


@pytest.mark.parametrize(
    "words",
    [
        ("method=lily", "method.rank=4", "method.router_stats=running"),
        ("method=heat", "prune.effect=attention"),
        ("score=rank", "prune.ratio=0.75"),
        ("method=adaptformer", "method.rank=1", "method.bias=true", "knowledge=int8"),
        ("share=similar", "knowledge=absorb"),
        ("knowledge=lowrank", "knowledge.learn_beta=true"),
        ("method=full", "score=channel", "prune.ratio=0.75"),
    ],
    ids=" ".join,
)
def test_what_pruning_can_be_set_to_passes(words):
    assert not failed(audited(*words))


def test_linear_updates_are_merged_and_others_say_why_not():
    assert audited()["pruned: merged"].value < 1e-6
    refused = audited("method=adaptformer")["merged"]
    assert refused.verdict is Verdict.none
    assert refused.meaning.startswith("not merged: blocks.0.mlp: the update of AdaptFormer cannot be merged")


def test_counts_leave_out_the_classifier_of_the_audit():
    found = audited("knowledge=none")
    assert found["trained"].value == 4 * 2 * 2 * 16 * 8  # blocks, slots, projections, width, rank
    assert found["pruned: trained"].value == found["trained"].value / 2
    assert 0 < found["pruned: stored"].value - 4 * found["pruned: trained"].value < 1000
    assert audited("method=linear")["stored"].value == 0


def test_two_audits_find_the_same():
    assert audited("score=rank") == audited("score=rank")


def test_a_backbone_that_goes_past_a_module_is_found(monkeypatch):
    def place(self, site):
        return replace(site, module=site.module.replace("qkv", "attn_drop"), rows=None)

    monkeypatch.setattr(LoRA, "place", place)
    found = audited()
    assert {"called", "gradients"} <= failed(found)
    assert found["called"].meaning.startswith("the model never calls blocks.0.attn.attn_drop and 3 more")


def test_a_parameter_that_does_nothing_is_named(monkeypatch):
    shapes = LoRA.shapes
    monkeypatch.setattr(LoRA, "shapes", lambda self, site: {**shapes(self, site), "spare": (2,)})
    found = audited("knowledge=none")
    assert failed(found) == {"gradients", "pruned: gradients"}
    assert found["gradients"].value == "18 of 26"
    assert "no gradient reaches adapter.blocks.0.attn.q.spare, " in found["gradients"].meaning
    assert "spare and 5 more: " in found["gradients"].meaning


@pytest.mark.parametrize("spare", [False, True])
def test_an_adapter_that_pruned_blocks_cut_off_is_counted_and_no_excuse(monkeypatch, spare):
    shapes = SPLoPA.shapes
    if spare:
        monkeypatch.setattr(SPLoPA, "shapes", lambda self, site: {**shapes(self, site), "spare": (2,)})
    found = audited("method=splopa")
    assert failed(found) == ({"gradients", "pruned: gradients"} if spare else set())
    after = found["pruned: gradients"].meaning
    assert ("spare" if spare else "; 1 cut off by pruned neighbours: adapter.blocks.3.mlp.fc1.pos") in after
    assert "fc1.pos" not in after if spare else found["pruned: gradients"].value == "35 of 36"


def test_a_trained_bank_that_no_kept_adapter_uses_is_found(monkeypatch):
    trained = Adaptation.trained

    def all_banks(self):
        return trained(self) | {f"bank.{name.replace('/', '.')}": bank for name, bank in self.banks.items()}

    monkeypatch.setattr(Adaptation, "trained", all_banks)
    monkeypatch.setattr(Adaptation, "_used", lambda self: {id(bank) for bank in self.banks.values()})
    found = audited("method=lily_mono", "method.rank=4", "method.stride=1", "prune.ratio=0.75")
    assert failed(found) == {"pruned: gradients"}
    assert "no gradient reaches adapter.bank.lp." in found["pruned: gradients"].meaning


def test_an_update_that_looks_at_the_next_image_is_found(monkeypatch):
    update = LoRA.update

    def leak(self, adapter, x, out, weight):
        return update(self, adapter, x.roll(1, 0), out, weight)

    monkeypatch.setattr(LoRA, "update", leak)
    monkeypatch.setattr(LoRA, "factors", lambda *args: None)
    assert failed(audited()) == {"batch", "pruned: batch"}


def test_adapters_that_start_elsewhere_are_found_unless_the_method_says_so(monkeypatch):
    monkeypatch.setattr(LoRA, "initialise", lambda self, adapter: _fill(adapter, 0.01))
    assert failed(audited()) == {"identity"}
    monkeypatch.setattr(LoRA, "starts_at_identity", False)
    assert audited()["identity"].value > 1e-6
    assert not failed(audited())
    monkeypatch.setattr(LoRA, "initialise", lambda self, adapter: _fill(adapter, 1.0))
    assert failed(audited()) == {"identity"}


def _fill(adapter, spread):
    for parameter in adapter.parameters():
        parameter.data.normal_().mul_(spread)


def test_a_backbone_that_is_not_frozen_is_found(monkeypatch):
    create = models.create

    def careless(*args):
        model = create(*args)
        model.blocks[0].mlp.fc1.weight.requires_grad_(True)
        return model

    monkeypatch.setattr(models, "create", careless)
    found = audited()["frozen"]
    assert found.verdict is Verdict.failed
    assert found.meaning.endswith("says otherwise: blocks.0.mlp.fc1.weight of the backbone")


def test_a_model_that_is_stored_too_coarsely_is_found(monkeypatch):
    tensors = models.tensors
    monkeypatch.setattr(models, "tensors", lambda m: {n: t.half().float() for n, t in tensors(m).items()})
    assert failed(audited()) == {"saved", "pruned: saved"}


def test_what_an_update_reads_but_nothing_stores_is_found(monkeypatch):
    initialise, factors = LoRA.initialise, LoRA.factors

    def hide(self, adapter):
        initialise(self, adapter)
        adapter.hidden = torch.rand(()).item()

    def reveal(self, adapter, weight):
        found = factors(self, adapter, weight)
        return found._replace(up=found.up * adapter.hidden)

    monkeypatch.setattr(LoRA, "initialise", hide)
    monkeypatch.setattr(LoRA, "factors", reveal)
    found = audited("knowledge=none")
    assert failed(found) == {"saved", "pruned: saved"}
    assert "LoRA.shapes, banks or buffers" in found["saved"].meaning


def test_the_statistics_of_a_backbone_stay_as_they_are():
    words = ("backbone=timm", "backbone.name=test_resnet", "backbone.pretrained=false", "method=linear")
    assert not failed(audited(*words))


def test_knowledge_that_is_stored_but_not_used_is_found(monkeypatch):
    keep, calls = Adaptation.keep, []

    def forgetful(self, *args):
        calls.append(args)
        if len(calls) > 1:
            keep(self, *args)

    monkeypatch.setattr(Adaptation, "keep", forgetful)
    assert failed(audited()) == {"pruned: saved"}


def test_a_merged_model_that_says_something_else_is_found(monkeypatch):
    merge = merging.merge

    def careless(model):
        merged = merge(model)
        merged.head.bias.data += 1e-3
        return merged

    monkeypatch.setattr(merging, "merge", careless)
    assert failed(audited()) == {"merged", "pruned: merged"}


def test_logits_that_are_no_numbers_fail(monkeypatch):
    monkeypatch.setattr(LoRA, "initialise", lambda self, adapter: _fill(adapter, float("nan")))
    found = audited()["identity"]
    assert found.to_json()["value"] == "nan"
    assert found.verdict is Verdict.failed


def test_a_check_that_crashes_has_failed_and_the_others_go_on(monkeypatch):
    def crash(model):
        raise ZeroDivisionError("our own\nbug")

    monkeypatch.setattr(merging, "merge", crash)
    found = audited()
    assert failed(found) == {"merged", "pruned: merged"}
    assert found["merged"].meaning.startswith("ZeroDivisionError: our own bug (checks.py, line ")


def test_pruning_that_would_be_refused_after_training_fails_before_it():
    found = audited("method=adaptformer", "prune.scope=block")
    assert failed(found) == {"pruned"}
    assert list(found)[-1] == "pruned"
    assert "prune.scope = block needs at least two units in a block" in found["pruned"].meaning


FLAGS = ("--config-dir", str(CONFIGS), *TINY)


def test_a_sound_model_is_a_table_on_stdout_without_data(pear, quiet):
    said = pear("audit", *quiet, *FLAGS, "dataset=cifar100", "dataset.root=nowhere")
    assert (said.code, said.err) == (0, "")
    header, *lines = said.out.splitlines()
    assert header.split() == ["check", "result", "value", "meaning"]
    assert len(lines) == ROWS
    assert not any("FAIL" in line for line in lines)


def test_a_failed_check_is_told_on_stderr_and_exits_with_1(pear, quiet):
    said = pear("audit", *quiet, *FLAGS, "method=lily", "method.rank=4")
    assert said.code == 1
    assert said.err == "pear audit: 2 of 16 checks failed: batch, pruned: batch\n"
    (line,) = (line for line in said.out.splitlines() if line.startswith("batch"))
    assert "FAIL" in line
    assert "method.router_stats=running" in line


def test_json_has_all_rows_in_one_line_a_job(pear, quiet):
    said = pear("audit", "-m", "--json", *quiet, *FLAGS, "method.rank=4", "method=lora,lily")
    assert said.code == 1
    good, bad = map(json.loads, said.out.splitlines())
    assert (good["command"], good["job"], len(good["checks"])) == ("audit", 0, ROWS)
    first = {"check": "identity", "result": "ok", "value": 0.0}
    assert good["checks"][0] == first | {"meaning": "a new model has the logits of the frozen backbone"}
    assert "error" not in good
    assert bad["error"]["type"] == "AuditFailed"
    assert [c["check"] for c in bad["checks"] if c["result"] == "FAIL"] == ["batch", "pruned: batch"]


def test_a_sweep_shows_each_table_below_the_overrides_of_its_job(pear, quiet):
    said = pear("audit", "-m", *quiet, *FLAGS, "method=linear,bitfit")
    assert said.code == 0
    heads = [line for line in said.out.splitlines() if line.startswith("method=")]
    assert heads == ["method=linear", "method=bitfit"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("prune.ratio=1.2", "prune.ratio = 1.2 is out of range"),
        ("phase=dense", "phase = dense: pear audit goes through both; leave phase out"),
        ("backbone.weights=absent", "backbone.weights = absent: no such file"),
        ("method.slots=[attn.x]", "this backbone has no slot 'attn.x'"),
    ],
)
def test_a_wrong_config_fails_as_a_run_does(pear, quiet, word, message):
    said = pear("audit", *quiet, *FLAGS, word)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"pear audit: {message}")


def test_the_table_fits_the_terminal():
    found = audited("method=lily", "method.rank=4").items()
    rows = [{"check": name, **finding.to_json()} for name, finding in found]
    screen = io.StringIO()
    print_checks(rows, Console(file=screen, width=70, force_terminal=True, color_system=None))
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= 70
    assert len(lines) > 2 * len(rows)


RESNET = ("backbone=timm", "backbone.name=test_resnet", "backbone.args.img_size=64", "method=sppara")
CONVS = "method.slots=[conv2]"


def test_norms_that_random_weights_start_at_zero_hide_nothing():
    found = audited(*RESNET, CONVS, "backbone.pretrained=false")
    assert not failed(found)
    assert found["gradients"].meaning.endswith("layer3.0.bn3.weight and 1 more are not zero")
    assert found["merged"].value > 0


def test_norms_of_trained_weights_that_are_zero_are_found(tmp_path):
    model = backbones.build(Backbone("test_resnet", False, None, 0, 0.0, None, None, {}), 10)
    torch.save({n: t for n, t in model.state_dict().items() if "fc" not in n}, tmp_path / "weights.pth")
    words = ("backbone.pretrained=false", f"backbone.weights={tmp_path / 'weights.pth'}")
    found = audited(*RESNET, CONVS, *words)
    assert "gradients" in failed(found)
    assert "what is frozen multiplies it by zero" in found["gradients"].meaning
