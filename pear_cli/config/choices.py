"""What a setting can choose from; the members of an enum are named as their values."""

from enum import StrEnum

Select = StrEnum("Select", "last val test_oracle")
"""Which epoch's weights a training stage keeps."""

Phase = StrEnum("Phase", "dense shared")

Unit = StrEnum("Unit", "adapter head rank channel block")
"""What is scored and pruned as one."""

View = StrEnum("View", "adapter output weight")
"""What the importance of an attention head is read from."""

Effect = StrEnum("Effect", "adapter attention")
"""What pruning switches off at an attention head: the adapters' updates, or its attention output."""

Criterion = StrEnum(
    "Criterion",
    "taylor gradient magnitude fisher activation ablation random group_magnitude group_taylor",
)
"""How the importance of a unit is estimated; the groups' are torch-pruning's, of channels."""

Reduction = StrEnum("Reduction", "mean_abs abs_of_sum sum_abs squared")
"""How the Taylor terms of the calibration batches become one number."""

ScoreOf = StrEnum("ScoreOf", "gate up all")
"""Over which parameters the Taylor term g·w is taken."""

PruneBy = StrEnum("PruneBy", "count parameters")

Scope = StrEnum("Scope", "global slot block")
"""Within what the units compete; `Scope["global"]`, since `global` is a keyword."""

ShareRule = StrEnum("ShareRule", "none top ranked nearest similar")

KnowledgeKind = StrEnum("KnowledgeKind", "none frozen lowrank int8 absorb")

BatchNorm = StrEnum("BatchNorm", "frozen train")
"""Whether training updates the running statistics of a backbone's BatchNorms."""

Schedule = StrEnum("Schedule", "per_phase continued")

OptimizerState = StrEnum("OptimizerState", "keep reset")

SharedGrad = StrEnum("SharedGrad", "sum mean")
"""What a shared adapter receives from the sites that it serves."""

Precision = StrEnum("Precision", "auto float32 bf16 float16")

Resize = StrEnum("Resize", "direct crop")
"""How an image of any shape becomes a square."""

DropoutAt = StrEnum("DropoutAt", "bottleneck input")
"""What LoRA drops: its bottleneck, as visual scripts have it, or its input, as PEFT and torchtune do."""

Interpolation = StrEnum("Interpolation", "bicubic bilinear backbone")

Augment = StrEnum("Augment", "none flip_crop randaugment")
"""What training does to its images, anew in every epoch."""

Initial = StrEnum("Initial", "paper code")
"""Whose initial values a structured pruning adapter starts from: the paper's, or its authors' code's."""

Caching = StrEnum("Caching", "auto ram disk none")
"""Where decoded images are kept."""

Metric = StrEnum("Metric", "accuracy mean_per_class_accuracy")
"""Which accuracy a benchmark reports."""

Tracker = StrEnum("Tracker", "none tensorboard wandb mlflow trackio")
"""Who else is told the metrics of every epoch."""
