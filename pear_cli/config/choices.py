"""What a setting can choose from.

The members of an enum are named as their values: that is how a config spells them.
"""

from enum import Enum


class Select(Enum):
    """Which epoch's weights a training stage keeps."""

    last = "last"
    val = "val"
    test_oracle = "test_oracle"


class Phase(Enum):
    dense = "dense"
    shared = "shared"


class Unit(Enum):
    """What is scored and pruned as one."""

    adapter = "adapter"
    head = "head"
    rank = "rank"
    channel = "channel"
    block = "block"


class View(Enum):
    """What the importance of an attention head is read from."""

    adapter = "adapter"
    output = "output"
    weight = "weight"


class Effect(Enum):
    """What pruning switches off at an attention head: the adapters' updates, or its attention output."""

    adapter = "adapter"
    attention = "attention"


class Criterion(Enum):
    """How the importance of a unit is estimated; the groups' are torch-pruning's, of channels."""

    taylor = "taylor"
    gradient = "gradient"
    magnitude = "magnitude"
    fisher = "fisher"
    activation = "activation"
    ablation = "ablation"
    random = "random"
    group_magnitude = "group_magnitude"
    group_taylor = "group_taylor"


class Reduction(Enum):
    """How the Taylor terms of the calibration batches become one number."""

    mean_abs = "mean_abs"
    abs_of_sum = "abs_of_sum"
    sum_abs = "sum_abs"
    squared = "squared"


class ScoreOf(Enum):
    """Over which parameters the Taylor term g·w is taken."""

    gate = "gate"
    up = "up"
    all = "all"


class PruneBy(Enum):
    count = "count"
    parameters = "parameters"


Scope = Enum("Scope", {"global": "global", "slot": "slot", "block": "block"})
"""Within what the units compete; `Scope["global"]`, since `global` is a keyword."""


class ShareRule(Enum):
    none = "none"
    top = "top"
    ranked = "ranked"
    nearest = "nearest"
    similar = "similar"


class KnowledgeKind(Enum):
    none = "none"
    frozen = "frozen"
    lowrank = "lowrank"
    int8 = "int8"
    absorb = "absorb"


class BatchNorm(Enum):
    """Whether training updates the running statistics of a backbone's BatchNorms."""

    frozen = "frozen"
    train = "train"


class Schedule(Enum):
    per_phase = "per_phase"
    continued = "continued"


class OptimizerState(Enum):
    keep = "keep"
    reset = "reset"


class SharedGrad(Enum):
    """What a shared adapter receives from the sites that it serves."""

    sum = "sum"
    mean = "mean"


class Precision(Enum):
    auto = "auto"
    float32 = "float32"
    bf16 = "bf16"
    float16 = "float16"


class Resize(Enum):
    """How an image of any shape becomes a square."""

    direct = "direct"
    crop = "crop"


class Interpolation(Enum):
    bicubic = "bicubic"
    bilinear = "bilinear"
    backbone = "backbone"


class Augment(Enum):
    """What training does to its images, anew in every epoch."""

    none = "none"
    flip_crop = "flip_crop"
    randaugment = "randaugment"


class Caching(Enum):
    """Where decoded images are kept."""

    auto = "auto"
    ram = "ram"
    disk = "disk"
    none = "none"


class Metric(Enum):
    """Which accuracy a benchmark reports."""

    accuracy = "accuracy"
    mean_per_class_accuracy = "mean_per_class_accuracy"


class Tracker(Enum):
    """Who else is told the metrics of every epoch."""

    none = "none"
    tensorboard = "tensorboard"
    wandb = "wandb"
    mlflow = "mlflow"
    trackio = "trackio"
