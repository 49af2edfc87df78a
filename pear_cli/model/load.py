"""The model that an artifact holds, and what its files are called."""

from torch import Tensor, nn

from pear_cli.model import models
from pear_cli.model.description import Description
from pear_cli.model.rebuild import rebuild
from pear_cli.store.artifact import Artifact, corrupt

ADAPTERS, KNOWLEDGE, OPTIMIZER, PROBE, MODEL = "adapters", "knowledge", "optimizer", "probe", "model"
SHARE_MAP, MASK = "share_map", "mask"


def load_model(artifact: Artifact, weights: str | None = None) -> tuple[nn.Module, Description]:
    """The model that an artifact holds, on the CPU in eval mode, checked against its probe logits.

    Raises:
        CorruptArtifact: altered files, or logits that differ from those of the time of saving.
        ConfigError: frozen weights that are missing or others.
    """
    description = Description.from_json(artifact.json(MODEL))
    model = rebuild(description, artifact.tensors(ADAPTERS), kept_knowledge(artifact), weights)
    models.check_probe(model, description, probe_logits(artifact))
    return model, description


def probe_logits(artifact: Artifact) -> Tensor:
    """The logits (4, K) of the fixed batch that an artifact stores."""
    logits = artifact.tensors(PROBE).get("logits")
    if logits is None:
        raise corrupt(artifact.path, f"{PROBE}.safetensors has no logits")
    return logits


def kept_knowledge(artifact: Artifact) -> dict[str, Tensor]:
    """The encoded knowledge of an artifact; empty where it keeps none."""
    return artifact.tensors(KNOWLEDGE) if f"{KNOWLEDGE}.safetensors" in artifact.manifest["files"] else {}
