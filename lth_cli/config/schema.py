"""The one schema of a composed config. Every field says what it means; the configuration reference is made from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator
from pydantic.fields import FieldInfo

from lth_cli.config.distilling import Distillation
from lth_cli.config.launching import Launcher
from lth_cli.config.steps import Duration, parse_rounds
from lth_cli.config.values import (
    MOST_ROUNDS,
    Component,
    Fraction,
    Interval,
    OpenFraction,
    PositiveSteps,
    RoundRange,
    Section,
    Seed,
    Steps,
)


def _one_name(value: Any) -> Any:
    """Permuting a layer's mask is drawing a new one with as many weights: two names of the field, one operation."""
    return "random" if value == "shuffle" else value


class Seeds(Section):
    """Separate sources of randomness; each one defaults to `seed`."""

    init: Seed | None = Field(None, description="Initial weights.")
    order: Seed | None = Field(None, description="Order of the training examples.")
    augment: Seed | None = Field(None, description="Augmentation and dropout.")
    mask: Seed | None = Field(None, description="Random masks and random scores.")
    split: Seed = Field(
        0, description="Validation split, subset, label noise and turns; 0, not `seed`, by default."
    )


class DataPlace(Section):
    """Where data lies and how it is read; changes no number."""

    root: str | None = Field(None, description="Folder of the data sets (environment: LTH_DATA_ROOT).")
    download: bool = Field(False, description="Download a missing data set into data.root.")
    workers: Annotated[int, Field(ge=0, le=256)] = Field(
        2, description="Loader processes of streamed data sets."
    )


# Columns of the table that analysis=examples stores.
Score = Literal["loss", "margin", "el2n", "grand", "forgetting", "barrier"]


class Subset(Section):
    """Part of the training examples: drawn by seeds.split, or chosen by a score."""

    fraction: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="Share of the training examples kept, drawn by seeds.split."
    )
    by: Score | None = Field(
        None, description="Score that examples are chosen by; null draws them by seeds.split."
    )
    scores: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Folder of an answer of analysis=examples, such as runs/NAME/analysis/examples-1a2b3c4d.",
    )
    keep: Literal["easiest", "hardest"] = Field(
        "easiest",
        description="easiest: those of the lowest score (margin: highest); among equals seeds.split decides.",
    )
    count: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Examples kept, by score or drawn, in the place of a fraction."
    )
    offset: Annotated[int, Field(ge=0)] = Field(
        0, description="Examples passed over before those kept by score."
    )
    class_balanced: bool = Field(
        False, description="As many of each class; where count leaves a rest, one more of each of the first."
    )
    classes: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, description="Classes kept (train, validation, test), relabelled 0, 1, ... in this order."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Subset:
        if (self.by is None) != (self.scores is None) or (self.by is not None and self.count is None):
            raise ValueError("choosing by a score takes by, scores and count, all three")
        if self.by is None and (self.offset or self.keep != "easiest"):
            raise ValueError("keep and offset choose by a score; give by, scores and count too")
        if self.count is not None and self.fraction < 1:
            raise ValueError("is of a count or a fraction, not both")
        if self.class_balanced and self.count is None:
            raise ValueError("class_balanced takes a count")
        return self


class Normalize(Section):
    """Per-channel normalisation (x - mean) / std of inputs scaled to [0, 1]."""

    mean: list[float]
    std: list[Annotated[float, Field(gt=0.0)]]


class Augment(Section):
    """Training-time augmentation, a function of (seeds.augment, step) alone."""

    crop: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="Zero-pad by this many pixels, crop at random."
    )
    flip: bool = Field(False, description="Mirror left-right with probability 1/2.")
    cutout: Annotated[int, Field(ge=0, le=512)] = Field(
        0, description="Side of the square set to zero, in pixels."
    )
    rand_augment: Annotated[int, Field(ge=0, le=20)] = Field(
        0,
        description="Operations of RandAugment on each image (Cubuk et al. 2020, arXiv:1909.13719); 0 is none.",
    )
    magnitude: Annotated[int, Field(ge=0, le=30)] = Field(
        9, description="How strong the operations of RandAugment are."
    )
    blur: Annotated[int, Field(ge=0, le=64)] = Field(
        0, description="Scale images down by this factor and up again, as open_lth blurs; 0 is none."
    )
    gaussian_blur: Annotated[float, Field(ge=0.0, le=64.0)] = Field(
        0.0, description="Standard deviation of a Gaussian blur in pixels; 0 is none."
    )
    mixup: Annotated[float, Field(ge=0.0, le=100.0)] = Field(
        0.0, description="alpha of MixUp (Zhang et al. 2018, arXiv:1710.09412); 0 is none."
    )
    cutmix: Annotated[float, Field(ge=0.0, le=100.0)] = Field(
        0.0,
        description="alpha of CutMix (Yun et al. 2019, arXiv:1905.04899); with MixUp, one of both a batch.",
    )

    @property
    def active(self) -> list[str]:
        """Keys of what is done to training batches."""
        return [key for key, value in self.model_dump(exclude={"magnitude"}).items() if value]

    @property
    def draws(self) -> bool:
        """Whether any of it is random; blurs are not."""
        return bool({*self.active} - {"blur", "gaussian_blur"})

    @property
    def mixing(self) -> bool:
        """Whether training batches have soft labels."""
        return bool(self.mixup or self.cutmix)

    @property
    def description(self) -> dict[str, Any]:
        """Plain values that decide it; what came later stands there only where it is used."""
        always = {"crop", "flip", "cutout"}
        later = {"magnitude"} if self.rand_augment else set()
        return self.model_dump(include=always | later | set(self.active))


class Dataset(Component):
    """A data set and what is done to it."""

    validation: Annotated[float, Field(ge=0.0, lt=1.0)] | Annotated[int, Field(ge=0)] = Field(
        0, description="Training examples held out: a count (integer) or a share (fraction)."
    )
    subset: Subset = Subset()
    label_noise: Fraction = Field(
        0.0,
        description="Share of the labels of the whole training set replaced by uniformly random ones, before any "
        "examples are chosen.",
    )
    rotation_labels: bool = Field(
        False,
        description="Turn each image by one of four angles, drawn by seeds.split; its label is which (Gidaris et al. "
        "2018, arXiv:1803.07728).",
    )
    normalize: Normalize | None = Field(None, description="Null leaves inputs as loaded.")
    augment: Augment = Augment()

    @model_validator(mode="after")
    def _one_task(self) -> Dataset:
        if self.rotation_labels and self.label_noise:
            raise ValueError(
                "rotation_labels and label_noise exclude each other: a turned image has one right label"
            )
        return self


class Initializer(Section):
    """How convolution, linear and batch-norm parameters start."""

    weights: Literal[
        "default",
        "kaiming_normal",
        "kaiming_uniform",
        "binary",
        "xavier_normal",
        "xavier_truncated",
        "xavier_uniform",
        "orthogonal",
    ] = Field(
        "default",
        description="Convolution and linear weights; `default` keeps the model's own. binary: signs of kaiming_normal "
        "times its standard deviation. xavier_truncated: xavier_normal without tails, as Frankle & Carbin's code.",
    )
    biases: Literal["default", "zero"] = Field("default", description="Convolution and linear biases.")
    batch_norm: Literal["default", "one", "oneone", "uniform", "positivenegative"] = Field(
        "default",
        description="Batch-norm scale: as built (ones), ones, uniform on [0, 1] or on [-1, 1]; the shift is 0, "
        "with oneone 1.",
    )


class Model(Component):
    """An architecture; input shape and number of classes come from the data set."""

    init: Initializer = Initializer()
    prune_output: bool = Field(True, description="Whether pruning.output_layer=auto prunes the output layer.")


CLASSIFICATION = "lth_cli.objectives.classification.Classification"


class Objective(Component):
    """What a training minimises and what is measured of it; its arguments are keys of this section."""

    target: str = Field(
        CLASSIFICATION, alias="_target_", description="A class of lth_cli.objectives, or an import path."
    )
    loss: Component | None = Field(
        None,
        description="Your own loss: _target_ of a function (outputs, batch) that returns the mean over the batch, "
        "and its arguments; null is that of the objective.",
    )

    @property
    def unusual(self) -> dict[str, Any]:
        """The section as plain values; nothing where it is classification as it comes."""
        written = {name: value for name, value in self.model_dump(mode="json").items() if value is not None}
        return {} if written == {"_target_": CLASSIFICATION} else written


BACKPROPAGATION = "lth_cli.training.updates.Backpropagation"


class Update(Component):
    """What a step does with a batch; its arguments are keys of this section."""

    target: str = Field(
        BACKPROPAGATION, alias="_target_", description="A class of lth_cli.training.updates, or an import path."
    )

    @property
    def unusual(self) -> dict[str, Any]:
        """The section as plain values; nothing where it is backpropagation as it comes."""
        written = self.model_dump(mode="json")
        return {} if written == {"_target_": BACKPROPAGATION} else written


class Optimizer(Component):
    """Any torch.optim class; its arguments are keys of this section."""

    lr: Annotated[float, Field(gt=0.0)] = Field(description="Learning rate before the schedule.")


class Schedule(Component):
    """Learning rate over training, as a factor on optimizer.lr."""

    warmup: Steps = Field(
        Duration(), description="Linear warm-up from 0 over this many steps, before any schedule."
    )


class Precision(Section):
    """Arithmetic of training and evaluation."""

    dtype: Literal["fp32", "tf32", "bf16"] = Field(
        "fp32", description="bf16 uses autocast; weights stay fp32."
    )
    channels_last: bool = Field(True, description="Memory layout of convolution inputs and weights.")


class Training(Section):
    """Length and batches of one training."""

    length: PositiveSteps = Field(description="Horizon of every training, rewind point included.")
    batch_size: Annotated[int, Field(ge=1)] = Field(description="Examples a step.")
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0, description="Cross-entropy smoothing."
    )
    gradient_clip: Annotated[float, Field(gt=0.0)] | None = Field(None, description="Largest gradient norm.")
    shuffle: bool = Field(True, description="New order each epoch; false keeps the stored order.")
    drop_last: bool = Field(False, description="Leave out an epoch's incomplete last batch.")
    freeze: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list,
        description="Tensors that stay as they are: batch_norm, output (layer), others (all but these two), or "
        "patterns of tensor names.",
    )


class Pruning(Section):
    """What goes each round: score x allocation x schedule, over the prunable tensors."""

    score: str = Field("magnitude", description="A function of lth_cli.pruning.scores, or an import path.")
    allocation: Literal["global", "layerwise"] = Field(
        "global", description="Rank all weights, or each layer's."
    )
    schedule: Literal["geometric", "linear"] = Field(
        "geometric", description="A fraction of what remains, or equal shares of all weights, each round."
    )
    rounds: Annotated[int, Field(ge=0, le=MOST_ROUNDS)] = Field(
        description="Pruning rounds after the dense one."
    )
    fraction: OpenFraction = Field(
        0.2, description="Share of the remaining weights pruned a round (geometric)."
    )
    count: Literal["exact", "open_lth"] = Field(
        "exact",
        description="exact: ceil(fraction x remaining) go. open_lth: the fraction is also of layers left out, and all "
        "up to the weight at that rank go (global, geometric).",
    )
    # Null stands for none: a config group can only be emptied that way, since Hydra merges mappings.
    layer_fractions: Annotated[
        dict[str, Annotated[float, Field(ge=0.0, lt=1.0)]],
        BeforeValidator(lambda given: {} if given is None else given),
    ] = Field(
        default_factory=dict,
        description="Own fractions by tensor-name pattern (layerwise only); `output` is the last.",
    )
    density: OpenFraction | None = Field(
        None, description="Stop once no more than this share of weights is left."
    )
    output_layer: Literal["auto", "prune", "keep"] = Field(
        "auto", description="auto follows model.prune_output."
    )
    biases: bool = Field(False, description="Also prune the biases of prunable layers.")
    exclude: list[str] = Field(default_factory=list, description="Tensor-name patterns never pruned.")
    at: Steps | None = Field(None, description="Step whose weights are scored; null is the end of training.")

    @model_validator(mode="after")
    def _counts_of_open_lth(self) -> Pruning:
        if self.count == "open_lth":
            given = [
                ("allocation=global", self.allocation == "global"),
                ("schedule=geometric", self.schedule == "geometric"),
                ("density=null", self.density is None),
                ("biases=false", not self.biases),
            ]
            for needed, there in given:
                if not there:
                    raise ValueError(f"pruning.count=open_lth needs pruning.{needed}")
        return self


class Rewind(Section):
    """How and from where each round retrains (Renda et al. 2020, arXiv:2003.02389)."""

    technique: Literal["weights", "learning_rate", "fine_tune"] = Field(
        "weights",
        description="weights: weights and schedule return to rewind.to. learning_rate: final weights of the round "
        "before, schedule from rewind.to. fine_tune: final weights of the round before, last rate of the schedule.",
    )
    to: Steps = Field(
        Duration(), description="Step of the dense training to which weights or schedule return."
    )
    length: PositiveSteps | None = Field(
        None,
        description="Steps of a retraining; null is as many as lie between rewind.to and training.length.",
    )


class Control(Section):
    """What a round trains in the place of its ticket."""

    mask: Annotated[Literal["ticket", "random", "random_global", "inverted"], BeforeValidator(_one_name)] = (
        Field(
            "ticket",
            description="random (or shuffle): drawn anew with the ticket's layer densities. random_global: with its "
            "density over all layers. inverted: the smallest weights of the dense network, as many a layer.",
        )
    )
    start: Literal["rewind", "reinit", "keep_signs"] = Field(
        "rewind",
        description="reinit: newly drawn weights. keep_signs: newly drawn magnitudes with the rewound signs.",
    )


# The controls that have a name of their own; configs/control/ has the same ones for lth rewind.
CONTROLS = {
    "random": Control(mask="random"),
    "random_global": Control(mask="random_global"),
    "inverted": Control(mask="inverted"),
    "reinit": Control(start="reinit"),
    "keep_signs": Control(start="keep_signs"),
}


class Controls(Section):
    """Baselines trained beside the tickets, on the same rounds."""

    kinds: list[
        Annotated[
            Literal["reinit", "random", "random_global", "inverted", "keep_signs"], BeforeValidator(_one_name)
        ]
    ] = Field(
        default_factory=list,
        description="reinit and keep_signs: same masks, new weights. random (or shuffle), random_global, inverted: "
        "other masks, rewound weights.",
    )
    rounds: RoundRange = Field(
        "all", description="Rounds that get controls: all, last, or for example 3,5-8."
    )


class Pretrain(Section):
    """Another training before the first step of the dense one; its end is where the dense one starts."""

    length: Steps = Field(
        Duration(), description="Steps of the pre-training, in its own epochs; 0 is none at all."
    )
    dataset: Dataset | None = Field(
        None,
        description="Its data set; null is that of the training. After other classes the output layer is drawn anew.",
    )
    subset: Subset | None = Field(None, description="Its part of the data set; null is that of the data set.")
    optimizer: Optimizer | None = Field(None, description="Null is that of the training.")
    schedule: Schedule | None = Field(
        None, description="Over the length of the pre-training; null is that of the training."
    )
    batch_size: Annotated[int, Field(ge=1)] | None = Field(None, description="Null is that of the training.")


class Evaluation(Section):
    """How often metrics are written; changes no weight."""

    every: PositiveSteps = Field(
        Duration(epochs=1), description="Steps between evaluations; the end is always one."
    )
    batch_size: Annotated[int, Field(ge=1)] = Field(1000, description="Examples a forward pass.")
    train: bool = Field(True, description="Evaluate the training set at the end of each training.")


class Distributed(Section):
    """Several processes for one training, each with a part of every batch; results change by rounding alone."""

    processes: Annotated[int, Field(ge=1, le=4096)] = Field(
        1, description="Processes that train together, one GPU each on CUDA; under torchrun its world size."
    )
    batch_norm: Literal["local", "synchronized"] = Field(
        "local", description="Batch-norm statistics of each process's part, or of the whole batch."
    )


class Checkpoint(Section):
    """How much work a crash may cost."""

    every: Interval = Field(
        "60s", description="Steps (500it, 1ep) or time (60s, 10min) between resume points."
    )
    keep: list[Steps] = Field(
        default_factory=list,
        description="Steps of the dense training to keep, to rewind to later without training them again.",
    )


class Config(Section):
    """Everything that says what a command does."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._,+-]{0,119}$")] | None = Field(
        None, description="Folder of the run; made from what was overridden when null."
    )
    runs_dir: Annotated[str, Field(min_length=1)] = Field(
        "runs", description="Folder of runs (LTH_RUNS_DIR)."
    )
    seed: Seed = Field(0, description="Default of every seed below.")
    seeds: Seeds = Seeds()
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$")] = Field(
        "auto", description="auto takes CUDA, then MPS, then the CPU; or cpu, cuda, cuda:N, mps."
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] = Field(
        "auto", description="Compute threads on the CPU; part of a run's identity, since it changes rounding."
    )
    precision: Precision
    data: DataPlace = DataPlace()
    dataset: Dataset
    model: Model
    objective: Objective = Objective()
    update: Update = Update()
    optimizer: Optimizer
    schedule: Schedule
    training: Training
    pruning: Pruning
    rewind: Rewind = Rewind()
    controls: Controls = Controls()
    pretrain: Pretrain = Pretrain()
    rounds: RoundRange = Field(
        "all", description="Rounds of the source that lth rewind retrains: all, last, or for example 3,5-8."
    )
    control: Control = Control()
    distillation: Distillation = Distillation()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    launcher: Launcher = Launcher()
    distributed: Distributed = Distributed()

    @property
    def resolved_seeds(self) -> dict[str, int]:
        """Every seed by name, `seed` standing in for those not given."""
        return {
            name: self.seed if value is None else value for name, value in self.seeds.model_dump().items()
        }

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        pruning = self.pruning
        if pruning.layer_fractions and (pruning.allocation, pruning.schedule) != ("layerwise", "geometric"):
            raise ValueError(
                "pruning.layer_fractions needs pruning.allocation=layerwise pruning.schedule=geometric"
            )
        if self.controls.kinds:
            try:
                parse_rounds(self.controls.rounds, pruning.rounds)
            except ValueError as error:
                raise ValueError(f"controls.rounds: {error} (pruning.rounds={pruning.rounds})") from None
        return self


def fields(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field of the config with its path, sections before what is in them."""
    for name, field in model.model_fields.items():
        path = prefix + (field.alias or name)
        yield path, field
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from fields(inner, path + ".")
