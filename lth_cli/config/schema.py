"""The one schema of a composed config. Every field says what it means; the configuration reference is made from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic.fields import FieldInfo

from lth_cli.config.datasets import Augment, DataPlace, Dataset, Normalize, Score, Subset
from lth_cli.config.distilling import Distillation
from lth_cli.config.goals import GOAL
from lth_cli.config.launching import Launcher
from lth_cli.config.pruning import CONTROLS, Control, Controls, Pruning, Rewind, SparseTraining
from lth_cli.config.steps import Duration, parse_rounds
from lth_cli.config.values import (
    DEVICE,
    NAME,
    Component,
    Interval,
    PositiveSteps,
    RoundRange,
    Section,
    Seed,
    Steps,
)

# Every section is reached through this module.
__all__ = [
    "CONTROLS",
    "Augment",
    "Control",
    "Controls",
    "DataPlace",
    "Dataset",
    "Normalize",
    "Pruning",
    "Rewind",
    "Score",
    "SparseTraining",
    "Subset",
]


class Seeds(Section):
    """Separate sources of randomness; each one defaults to `seed`."""

    init: Seed | None = Field(None, description="Initial weights.")
    order: Seed | None = Field(None, description="Order of the training examples.")
    augment: Seed | None = Field(None, description="Augmentation and dropout.")
    mask: Seed | None = Field(None, description="Random masks and random scores.")
    split: Seed = Field(
        0, description="Validation split, subset, label noise and turns; 0, not `seed`, by default."
    )


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
        "delta_orthogonal",
    ] = Field(
        "default",
        description="Convolution and linear weights; `default` keeps the model's own. binary: signs of kaiming_normal "
        "times its standard deviation. xavier_truncated: xavier_normal without tails, as Frankle & Carbin's code. "
        "delta_orthogonal: orthogonal, of convolutions the centre of the kernel alone (Xiao et al. 2018).",
    )
    gain: Annotated[float, Field(gt=0.0)] = Field(
        1.0,
        description="Factor on orthogonal and delta_orthogonal weights; +model.init.gain=1.4142 makes up for ReLU.",
    )
    biases: Literal["default", "zero"] = Field("default", description="Convolution and linear biases.")
    batch_norm: Literal["default", "one", "oneone", "uniform", "positivenegative"] = Field(
        "default",
        description="Batch-norm scale: as built (ones), ones, uniform on [0, 1] or on [-1, 1]; the shift is 0, "
        "with oneone 1.",
    )

    @model_validator(mode="after")
    def _gain_of_orthogonal(self) -> Initializer:
        if self.gain != 1.0 and self.weights not in ("orthogonal", "delta_orthogonal"):
            raise ValueError("gain is for weights=orthogonal and weights=delta_orthogonal; leave it at 1")
        return self

    @model_serializer(mode="wrap")
    def _without_a_gain_of_one(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Plain configs and identities are what they were before there was a gain."""
        written: dict[str, Any] = write(self)
        return {key: value for key, value in written.items() if key != "gain" or value != 1.0}


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
        BACKPROPAGATION,
        alias="_target_",
        description="A class of lth_cli.training.updates, or an import path.",
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


class Pretrain(Section):
    """Another training before the first step of the dense one, or weights from elsewhere: its start."""

    weights: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Weights to start from: a file, or a folder with model.safetensors, or a state of a run "
        "(RUN:0@end). Tensors of the head that are not among them are drawn anew.",
    )
    fresh: list[Annotated[str, Field(min_length=1)]] = Field(
        [],
        description="Tensors drawn anew though the weights have them: output, others, or patterns of names.",
    )
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

    @model_validator(mode="after")
    def _one_of_both(self) -> Pretrain:
        if self.weights is not None and self.length:
            raise ValueError("pretrain.weights and pretrain.length exclude each other; leave one of them out")
        if self.fresh and self.weights is None:
            raise ValueError("pretrain.fresh is of pretrain.weights; name these, or leave it out")
        return self


class OwnMetric(Component):
    """A metric of your own, named after its function; its arguments are keys of this section."""

    better: Literal["higher", "lower"] = Field(description="Which way it is better.")
    unit: str = Field(
        "", description="% for a fraction that is read in per cent; else what it is in, or nothing."
    )


class Evaluation(Section):
    """How often metrics are written; changes no weight."""

    every: PositiveSteps = Field(
        Duration(epochs=1), description="Steps between evaluations; the end is always one."
    )
    batch_size: Annotated[int, Field(ge=1)] = Field(1000, description="Examples a forward pass.")
    subset: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Evaluate so many examples of each split, drawn by seeds.split, instead of all; results say so.",
    )
    train: bool = Field(True, description="Evaluate the training set at the end of each training.")
    metrics: list[OwnMetric] = Field(
        default_factory=list,
        description="Metrics of your own of the validation and test examples: [{_target_: mylab.macro_f1, better: "
        "higher}], functions (outputs [N, ...], batch of tensors [N, ...]) that return a number.",
    )
    predictions: bool = Field(
        False, description="Keep what the end of each round answers to the validation and test examples."
    )


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

    name: Annotated[str, Field(pattern=NAME)] | None = Field(
        None, description="Folder of the run; made from what was overridden when null."
    )
    runs_dir: Annotated[str, Field(min_length=1)] = Field(
        "runs", description="Folder of runs (LTH_RUNS_DIR)."
    )
    seed: Seed = Field(0, description="Default of every seed below.")
    seeds: Seeds = Seeds()
    device: Annotated[str, Field(pattern=DEVICE)] = Field(
        "auto", description="auto takes CUDA, then MPS, then the CPU; or cpu, cuda, cuda:N, mps."
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] = Field(
        "auto", description="Compute threads on the CPU; part of a run's identity, since it changes rounding."
    )
    cuda_graphs: bool = Field(
        True,
        description="Replay the passes of a small network on a GPU where that is measured faster; same bytes.",
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
    until: Annotated[str, Field(pattern=GOAL)] | None = Field(
        None,
        description="Goal that ends a training before its length: val_accuracy:0.98 at the first evaluation with at "
        "least that, test_loss:0.1 with at most that. Schedules extend over training.length all the same.",
    )
    pruning: Pruning
    sparse_training: SparseTraining = SparseTraining()
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
    loggers: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(
        default_factory=list,
        description="Also send every evaluation to these, as extras of their names install them; changes no number.",
    )

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
