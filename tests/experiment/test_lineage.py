import pytest

from pear_cli.experiment.lineage import Lineage, method_name


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("pear_cli.adapters.lora.LoRA", "lora"),
        ("pear_cli.adapters.bottleneck.Bottleneck", "bottleneck"),
        ("elsewhere.deep.mine.Mine", "mine"),
        ("LoRA", "LoRA"),
        ("lora.", "lora."),
        (".LoRA", ".LoRA"),
        ("..", ".."),
        ("", None),
        (None, None),
        (["pear_cli.adapters.lora.LoRA"], None),
        ({"a": 1}, None),
    ],
)
def test_a_method_has_the_name_of_its_formula_and_a_strangers_target_never_raises(artifact, target, name):
    assert method_name(target) == name
    lineage = Lineage(artifact({"method": {"_target_": target, "rank": 8}}), (), ())
    assert lineage.setting("method") == name
    assert lineage.settings["method.rank"] == 8
    assert "method._target_" not in lineage.settings


@pytest.fixture
def artifact(tmp_path):
    from pear_cli.store.store import Store

    def publish(config):
        with Store(tmp_path).draft("train", "0" * 32) as draft:
            return draft.publish(
                inputs={}, config=config, metrics={}, accounting={}, seconds=1.0, environment={}
            )

    return publish
