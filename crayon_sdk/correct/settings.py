"""Settings of the methods, each declared here and nowhere else; they are written into every checkpoint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from crayon_sdk._base.settings import Count, Number, OneOrMore, Share, settings
from crayon_sdk.answers.relevance import Rule

__all__ = [
    "AttentionSettings",
    "BaselineSettings",
    "ERMSettings",
    "NetworkSettings",
    "PruningSettings",
    "TrainingSettings",
    "settings",
]

# Above, a float32 overflows before a loss can tell.
Rate = Annotated[float, Field(ge=0, le=1e30)]
Decay = Annotated[float, Field(ge=0, le=1e6)]
Positive = Annotated[float, Field(gt=0)]
Prior = Annotated[float, Field(ge=0, le=10)]
Scheduler = Literal["none", "cosine", "step", "step-once"]
Target = Literal["label", "predicted"] | Count
BatchNorm = Literal["train", "frozen"]
Keep = Literal["last", "best"]
Optimizer = Literal["adam", "adamw", "sgd"]
Seed = Annotated[int, Field(ge=0, le=2**32)]


@settings
class TrainingSettings:
    """How a module is trained; each method has its own defaults."""

    epochs: Count
    """Passes over the data."""
    batch_size: OneOrMore
    """Samples per step."""
    lr: Rate
    """Peak learning rate."""
    weight_decay: Decay = 0.0
    """L2 penalty ("adam", "sgd") or decoupled decay ("adamw")."""
    optimizer: Optimizer = "adam"
    """How the gradient becomes a step."""
    momentum: Share = 0.9
    """Of "sgd"."""
    scheduler: Scheduler = "none"
    """How the learning rate falls: not at all, as a cosine to zero, in steps, or in one step."""
    warmup_epochs: Number = 0.0
    """Epochs over which the rate first rises from zero; may be a fraction."""
    step_epochs: OneOrMore = 1
    """With "step" and "step-once": after how many epochs the rate falls."""
    step_factor: Share = 0.1
    """With "step" and "step-once": what it is multiplied with each time."""
    average_decay: Share = 0.0
    """Decay per step of the exponential moving average of the weights that is kept as the result; 0 keeps the last
    weights."""
    clip_norm: Number = 0.0
    """Largest norm of the gradient, of each network for itself; 0 does not clip."""
    logit_adjustment: Prior = 0.0
    """How much of the log share of each class is added to the logits inside the cross entropy; 0 is the plain cross
    entropy, 1 is fair to rare classes."""
    seed: Seed = 0
    """Of everything random."""


@settings
class NetworkSettings(TrainingSettings):
    """How a whole network is trained on pictures: what every method that does so has."""

    epochs: Count = 6
    batch_size: OneOrMore = 64
    lr: Rate = 1e-4
    weight_decay: Decay = 1e-4
    scheduler: Scheduler = "cosine"
    average_decay: Share = 0.98
    accumulate: OneOrMore = 1
    """In how many parts a batch goes through the network, one after the other: less memory, and the same step. With
    batch_norm="train" each part is normalised by itself, and moves the statistics; with "frozen" nothing is other than
    in one part, but for rounding."""
    auto_batch_size: bool = True
    """Where the memory of a GPU runs out, take the batch in twice as many parts (``accumulate``), say so, and go on."""
    batch_norm: BatchNorm = "train"
    """"train" updates batch statistics; "frozen" keeps those of the original model and normalises with them."""
    mirror: Share = 0.0
    """How likely a picture is mirrored in a step, with its map, mask and object."""
    crop_area: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Least share of a picture that a step shows: some part of it, drawn anew, is brought to its size, with its map,
    mask and object; 1 shows all. A map whose highlight is not in that part does not guide in that step."""
    keep: Keep = "last"
    """Which epoch is the result: the last, or the best on the data that is evaluated on (worst group with group
    columns, else worst class)."""


@settings
class BaselineSettings(NetworkSettings):
    """What the compared methods have besides: where they start, and whether they take sums or means."""

    init: str = "original"
    """Which weights are trained: "original", those of the model that is given; "pretrained", the published ones of its
    architecture; or of the same architecture whatever `load_model` takes, "hf-hub:...", "local-dir:..." or a name."""
    reduction: Literal["sum", "mean"] = "sum"
    """What of the samples of a batch is minimised: "sum", as by the other methods of this package, or "mean", as by the
    authors of the compared methods. Learning rates of "sgd", and decays, depend on it."""


@settings
class ERMSettings(NetworkSettings):
    """How further training is done: as `AttentionCorrector` trains, without what it adds to the cross entropy."""

    until_accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    """Training accuracy, as measured in the steps of an epoch, at which training ends before its last epoch."""


@settings
class AttentionSettings(NetworkSettings):
    """How CRAYON-Attention is done; training settings included."""

    logit_adjustment: Prior = 1.0
    alpha: Number = 1e3
    """Weight of the relevant term of Eq. 4."""
    beta: Number = 1e3
    """Weight of the irrelevant term of Eq. 4."""
    area_normalized: bool = True
    """Divide each term by its area, so that alpha and beta do not depend on the resolution of the map (the form of the
    published Waterbirds runs); else the plain sums of the paper."""
    target: Target = "label"
    """Whose evidence the map in training shows, "label", "predicted" or a class number; the same as in the
    explainer."""
    score: Literal["maps", "logit", "margin"] = "maps"
    """What is differentiated for the map in training; "maps" is what was differentiated for the maps that were
    answered."""
    zero_maps: Literal["skip", "keep"] = "skip"
    """"skip" leaves samples whose reference map has no positive evidence out of the guidance; "keep" guides with a map
    of ones, as the authors' code does."""
    spread: Literal["auto", "never"] = "auto"
    """Whether answers reach the pictures that nobody was asked about: "auto" learns from them what the object looks
    like, and guides and exchanges by that in every picture, where the model gives intermediate features (timm's do) and
    at least one answer is yes; "never" guides what was answered, as the paper does."""
    balance: Literal["auto", "never"] = "auto"
    """Whether pictures in a surround that is not that of their class count more: "auto" finds them by what answers say
    about the object, and weighs them only where they can be trusted (see find_groups); "never" weighs all alike."""
    background_swap: Share | None = None
    """Probability that a picture whose object is known (with ``spread`` all, else the relevant ones) stands on another
    background, made of tiles of another picture, in a step; where it is not said, 0.7 for models that give intermediate
    features (timm's do), else 0."""
    answer_rule: Rule = "unanimous"
    """From votes to relevance; "dawid-skene" and "mace" weigh people by how reliable they seem (extra ``crowd``)."""


@settings
class PruningSettings(TrainingSettings):
    """How CRAYON-Pruning is done; training settings of the last layer included."""

    epochs: Count = 10
    batch_size: OneOrMore = 64
    lr: Rate = 1e-2
    weight_decay: Decay = 10.0  # without it the layer learns the pictures by heart, with whatever neurons are left
    scheduler: Scheduler = "cosine"
    logit_adjustment: Prior = 1.0
    spread: Literal["auto", "never"] = "auto"
    """"auto": answers about patches also teach what the object looks like, each neuron is judged by how much of its
    activity, in all pictures, is on the object, and of the least of them the share is cut that people found irrelevant;
    neurons that nobody was asked about are judged likewise. "never", as published: what people found irrelevant is cut,
    and nothing else."""
    answer_rule: Rule = "majority"
    """From votes to relevance of a neuron: "majority" (of its patches, ties stay), "unanimous" (cut only if every
    answer is no), "share", or, weighing people by how reliable they seem, "dawid-skene" or "mace" (extra
    ``crowd``)."""
    least_share: Share = 0.5
    """With "share": a neuron stays when at least this share of its patches got a yes. With many patches per neuron a
    high share cuts more, and better."""
