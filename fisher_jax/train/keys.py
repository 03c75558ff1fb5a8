"""Every configuration key, declared once: type, range, unit, default, explanation.

``experiments/base.py`` makes its defaults from this file, ``config.py`` its checks and
messages, the documentation its reference page. A new key is a line and its explanation
here, and what reads it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    model_validator,
)

from fisher_jax import penalties
from fisher_jax.curvature import fisher
from fisher_jax.data.stream_reading import ImageSize
from fisher_jax.models import MODELS
from fisher_jax.train.gradients import PENALTIES

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
AboveZero = Annotated[float, Field(gt=0)]
AtLeastZero = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def key(default: Any, explanation: str, *, unit: str = "") -> Any:
    """A key's default, what it does, and what its number counts or measures."""
    return Field(default, description=explanation, json_schema_extra={"unit": unit})


@dataclass(frozen=True)
class OneOf:
    """For an annotation: a text that is in a table, as that is when it is checked."""

    names: Iterable[str]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> Any:
        """Checks the text after its type."""

        def check(text: str) -> str:
            if text not in self.names:
                raise ValueError(f"one of {', '.join(self.names)}")
            return text

        return handler(Annotated[source, AfterValidator(check)])

    def __get_pydantic_json_schema__(
        self, schema: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Lists the choices as those of a Literal are."""
        return handler(schema) | {"enum": list(self.names)}


class Section(BaseModel):
    """Keys that belong together. Nothing is converted but an integer to a float."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False
    )


class Dataset(Section):
    """What a network is trained on."""

    name: str = key(
        "digits",
        "digits, cifar10, cifar100, tiny_imagenet, imagenet2012 or any TFDS set with "
        "the features image and label.",
    )
    data_dir: str | None = key(
        None,
        "Folder with prepared TFDS sets; None: TFDS's default, ~/tensorflow_datasets.",
    )
    num_train: Positive | None = key(
        None,
        "Size of a random subset of the training split; None: all that remains.",
        unit="examples",
    )
    num_validation: NonNegative = key(
        0,
        "Training examples set aside for validation, chosen by (seed, example id).",
        unit="examples",
    )
    augment: Literal["none", "flip", "standard"] = key(
        "none",
        "flip: left to right with probability one half. standard: pad by "
        "crop_padding, crop at random, flip; for photographs crop a random 8% to 100% "
        "of the image, flip.",
    )
    crop_padding: NonNegative | None = key(
        None,
        "Zeros on every side of an image before augment=standard crops it. Not for "
        "photographs. None: 4, an eighth of the side of CIFAR's images.",
        unit="pixels",
    )
    label_noise: Fraction = key(
        0.0,
        "Fraction of the training labels that are replaced by uniform draws from the "
        "classes.",
    )
    image_size: Positive | None = key(
        None,
        "Side of the images in pixels: on loading they are averaged down to it, each "
        "pixel the mean of the area that it covers. Not for photographs. None: "
        "unchanged.",
        unit="pixels",
    )
    resize_size: Positive | None = key(
        None,
        "For photographs (imagenet2012), which are read from disk during training: "
        "the length to which the shorter side is resized; None: 256.",
        unit="pixels",
    )
    crop_size: Positive | None = key(
        None,
        "For photographs: side of the central crop; None: 224.",
        unit="pixels",
    )
    decode_threads: NonNegative | None = key(
        None,
        "For photographs: decoding threads in each process; 0 or None: one per core.",
    )
    num_workers: NonNegative | None = key(
        None,
        "For photographs: processes that decode instead of these threads, faster on "
        "many cores; None: 0.",
    )
    read_ahead: Positive | None = key(
        None,
        "For photographs: batches to prepare in advance; None: 2.",
        unit="batches",
    )


class Model(Section):
    """The network. None is the network's own value, the paper's."""

    name: Annotated[str, OneOf(MODELS)] = key("simple_cnn", "The architecture.")
    padding: Literal["same", "keras"] | None = key(
        None,
        "keras: the paper's; the second convolution of a block does not pad. same: "
        "all pad, for images that are too small for keras, such as 8×8.",
    )
    depth: Positive | None = key(None, "Number of layers.", unit="layers")
    width: Positive | None = key(None, "Widening factor.")
    growth_rate: Positive | None = key(
        None, "Channels that each layer adds, the paper's k.", unit="channels"
    )
    normalisation: Literal["batch_norm", "skip_init", "weight_norm"] | None = key(
        None, "skip_init is for wide_resnet, weight_norm for resnet."
    )
    compute_dtype: Literal["float32", "bfloat16"] = key(
        "float32",
        "Type of the activations; parameters and traces stay float32. bfloat16 needs "
        "an accelerator.",
    )


class Optimizer(Section):
    """SGD, as PyTorch defines it."""

    learning_rate: AboveZero = key(0.01, "Until the first of decay_epochs.")
    momentum: Fraction = key(0.9, "Heavy-ball momentum, not Nesterov's.")
    weight_decay: AtLeastZero = key(
        0.0,
        "Coupled: weight_decay times the parameters is added to the gradient, for "
        "every parameter.",
    )
    decay_factor: Annotated[float, Field(gt=0, le=1)] = key(
        0.1, "Factor on the learning rate at each of decay_epochs."
    )
    decay_epochs: Annotated[tuple[Positive, ...], Strict(False)] = key(
        (), "When the learning rate decays, in increasing order.", unit="epochs"
    )


class Train(Section):
    """How long and in which batches."""

    num_epochs: Positive = key(20, "Length of the run.", unit="epochs")
    batch_size: Positive = key(
        128,
        "Global batch size, a multiple of the number of devices; the last incomplete "
        "batch of an epoch is dropped.",
        unit="examples",
    )
    microbatches: Positive = key(
        1,
        "Number of parts in which each device computes its share of the batch, one "
        "after another, for batches larger than memory; the step and its penalty are "
        "those of the whole batch. Not with batch norm, whose statistics would be "
        "those of a part.",
    )
    steps_per_call: Positive | None = key(
        None,
        "Steps in one compiled program, so that small networks do not wait for Python; "
        "the penalty is renewed at the first of them only, and what is due between two "
        "steps lies between two calls: where so many do not fit, one is taken. Others "
        "give the same up to rounding. None: 10 on accelerators, 1 on CPUs and for "
        "photographs, which are read from disk.",
        unit="steps",
    )
    init_from: str | None = key(
        None,
        "A run directory whose final parameters this run starts from; None: "
        "initialise.",
    )
    deterministic: bool = key(
        True,
        "On GPUs, use only operations that give the same bits every time; some are "
        "slower.",
    )


class Penalty(Section):
    """What is added to the loss: cross-entropy + coefficient * penalty."""

    name: Annotated[str, OneOf(PENALTIES)] = key(
        "none",
        "fisher: FP or, depending on draw, RFP. fisher_single: FP of one example. "
        "gradient: GP. random_label: GP_r. input_gradient: GP_x. gradient_norm: Zhao "
        "et al. 2022, to first order, in every step.",
    )
    draw: penalties.Draw = key(
        "labels",
        "For the penalty fisher. labels: the paper's FP. rademacher: RFP. importance: "
        "labels by importance. The gradients of these two are unbiased estimates of "
        "that of Tr(F)/B.",
    )
    num_groups: Positive = key(
        1,
        "For the penalty fisher: number of equal parts of the batch whose squared "
        "norms are summed, instead of taking that of the whole batch. Same mean and "
        "cost, less noise. 1: the paper's. A group lies within a device.",
        unit="groups",
    )
    coefficient: AtLeastZero = key(0.0, "α.")
    update_every: Positive = key(
        10,
        "f: steps from one computation of the penalty's gradient to the next; it is "
        "reused in between.",
        unit="steps",
    )
    num_examples: Positive | None = key(
        None,
        "Number of examples, the first of the batch, that the penalty sees; None: all.",
        unit="examples",
    )
    start_epoch: NonNegative = key(
        0,
        "Epochs of plain training before the penalty is switched on (figure 3).",
        unit="epochs",
    )
    radius: AboveZero = key(
        0.05, "For gradient_norm: r, how far ahead its second gradient is taken."
    )
    method: penalties.Method = key(
        "exact", "exact: forward-over-reverse. finite_difference: two gradients."
    )
    batch_norm: Literal["train", "eval"] = key(
        "train",
        "Whether batch norm uses this batch's statistics (train) or the running ones "
        "(eval) inside the penalty.",
    )


class Mixup(Section):
    """Mixup (Zhang et al. 2018)."""

    beta: AtLeastZero = key(0.0, "λ ~ Beta(beta, beta); 0: off.")


class Sam(Section):
    """Sharpness-aware minimisation (Foret et al. 2021)."""

    radius: AtLeastZero = key(0.0, "ρ; 0: off.")


class Measure(Section):
    """What is recorded along the run, besides step, epoch and time."""

    every_epochs: Positive = key(
        1,
        "Epochs between records in metrics.jsonl; there is also one at step 0 and at "
        "the end.",
        unit="epochs",
    )
    every_steps: NonNegative = key(
        0,
        "Steps between additional records of Tr(F), on newly drawn examples, and the "
        "minibatch's loss; 0: off.",
        unit="steps",
    )
    train_examples: Positive | None = key(
        None,
        "Training examples for train/loss and train/accuracy; None: all.",
        unit="examples",
    )
    fisher_examples: NonNegative = key(
        1000,
        "Training examples for Tr(F): the same during the run, but others at each "
        "record of every_steps; 0: off.",
        unit="examples",
    )
    fisher_estimator: fisher.Estimator = key(
        "per_example", "How Tr(F) is estimated; see the theory page."
    )
    fisher_draw: penalties.Draw = key(
        "rademacher",
        "rademacher: precise late in training too. importance: even more so. labels: "
        "the paper's.",
    )
    precision: Literal["default", "high", "highest"] = key(
        "highest",
        "For the matrix products of Tr(F) and Tr(H). highest: float32. default: as "
        "in training, faster on TPUs and GPUs; see the theory page.",
    )
    hessian_probes: NonNegative = key(
        0, "Gaussian probes for Tr(H), 30 in the paper; 0: off."
    )
    hessian_examples: Positive = key(
        128, "Training examples for Tr(H).", unit="examples"
    )
    hessian_every_epochs: Positive = key(
        1,
        "Epochs between records with Tr(H); the last record has it too.",
        unit="epochs",
    )
    gradient_examples: NonNegative = key(
        500,
        "Clean examples, and as many noisy ones, for gradient/*; only with label "
        "noise; 0: off.",
        unit="examples",
    )
    estimator_repeats: NonNegative = key(
        0,
        "Repeats from which the relative errors of all estimators of Tr(F) and Tr(H) "
        "are taken, on the examples of Tr(F); 0: off.",
    )
    early_loss: AboveZero = key(
        1.2,
        "ε: early Tr(F) is taken at the first epoch whose training loss is below it.",
    )
    batch_size: Positive = key(
        1000, "Examples per device call in an evaluation.", unit="examples"
    )
    chunk_size: Positive = key(128, "Examples per chunk of Tr(F).", unit="examples")


class Eval(Section):
    """How a network is evaluated."""

    reestimate_batch_norm: NonNegative = key(
        0,
        "Training batches on which batch norm's statistics are estimated again "
        "before each measurement, 100 in the paper; 0: use the running averages.",
        unit="batches",
    )


class Checkpoint(Section):
    """What a run continues from."""

    every_epochs: Positive = key(
        1,
        "Epochs between checkpoints, if min_seconds have passed since the last.",
        unit="epochs",
    )
    min_seconds: AtLeastZero = key(
        30.0, "Least time between two checkpoints.", unit="seconds"
    )
    keep: Positive = key(
        2,
        "Number of latest checkpoints to keep; each also has the best parameters by "
        "validation.",
    )


class Config(Section):
    """Everything that a run is told."""

    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = key(
        0,
        "Determines initialisation, label noise, validation split, batches and draws.",
    )
    tracker: Literal["tensorboard", "wandb", "mlflow"] = key(
        "tensorboard",
        "Tracker that shows the metrics, in addition to metrics.jsonl; wandb and "
        "mlflow are extras and read WANDB_MODE, MLFLOW_TRACKING_URI, ...",
    )
    dataset: Dataset = Dataset()
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    train: Train = Train()
    penalty: Penalty = Penalty()
    mixup: Mixup = Mixup()
    sam: Sam = Sam()
    measure: Measure = Measure()
    eval: Eval = Eval()
    checkpoint: Checkpoint = Checkpoint()

    @property
    def penalised_examples(self) -> int:
        """How many of the batch's examples the penalty sees."""
        if self.penalty.name == "fisher_single":
            return 1
        return self.penalty.num_examples or self.train.batch_size

    @property
    def adds_penalty(self) -> bool:
        """Whether a penalty's gradient is added; gradient_norm changes the loss's."""
        return PENALTIES[self.penalty.name] is not None

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        for problem in _problems(self):
            raise ValueError(problem)
        return self


def _problems(config: Config) -> Iterator[str]:
    """What is wrong with two keys at once, each in one line.

    What takes data, devices or a network to tell stands in ``surroundings.py``.
    """
    model, train = config.model, config.train
    for name in model_keys(model):
        if name not in MODELS[model.name].__dataclass_fields__:
            yield (
                f"model.{name} works with {', '.join(takers(name))}, not with "
                f"{model.name}"
            )
    dataset, default = config.dataset, ImageSize()
    crop = dataset.crop_size or default.crop
    resize = dataset.resize_size or default.resize
    if crop > resize:
        yield f"dataset.crop_size={crop} exceeds dataset.resize_size={resize}"
    yield from _penalty_problems(config)
    epochs = config.optimizer.decay_epochs
    if list(epochs) != sorted(set(epochs)):
        yield f"optimizer.decay_epochs must increase, got {epochs}"
    is_gradient_norm = config.penalty.name == "gradient_norm"
    if train.microbatches > 1 and (config.sam.radius or is_gradient_norm):
        yield (
            "train.microbatches above 1 does not work with sam.radius or "
            "penalty.name=gradient_norm"
        )
    measure = config.measure
    often, seldom = sorted((measure.every_epochs, measure.hessian_every_epochs))
    if measure.hessian_probes and seldom % often:
        yield (
            f"measure.hessian_every_epochs={measure.hessian_every_epochs} does not fit "
            f"measure.every_epochs={measure.every_epochs}: Tr(H) stands in records"
        )
    if config.mixup.beta and config.sam.radius:
        yield "mixup.beta and sam.radius cannot both be on"


def _penalty_problems(config: Config) -> Iterator[str]:
    """What of ``penalty`` does not fit its name or the batch."""
    penalty, batch_size = config.penalty, config.train.batch_size
    compute_dtype = config.model.compute_dtype
    if penalty.num_examples is not None and penalty.num_examples > batch_size:
        yield (
            f"penalty.num_examples ({penalty.num_examples}) exceeds train.batch_size "
            f"({batch_size})"
        )
    if penalty.draw != "labels" and penalty.name not in ("none", "fisher"):
        yield (
            f"penalty.draw={penalty.draw} needs penalty.name=fisher, "
            f"got {penalty.name!r}"
        )
    # Whether devices and batch norm suit groups: surroundings.py.
    if penalty.num_groups > 1:
        if penalty.name != "fisher":
            yield (
                f"penalty.num_groups={penalty.num_groups} needs penalty.name=fisher, "
                f"got {penalty.name!r}"
            )
        if config.penalised_examples % penalty.num_groups:
            yield (
                f"penalty.num_groups={penalty.num_groups} does not divide the "
                f"{config.penalised_examples} examples that the penalty sees"
            )
    if (penalty.name, penalty.method) == ("input_gradient", "finite_difference"):
        yield "penalty.name=input_gradient works with penalty.method=exact only"
    is_gradient_norm = penalty.name == "gradient_norm"
    is_difference = is_gradient_norm or (
        penalty.name != "none" and penalty.method == "finite_difference"
    )
    if is_difference and compute_dtype != "float32":
        # Of SimpleCNN's gradients 0.05 apart, a third of the difference is rounding.
        chosen = (
            "name=gradient_norm" if is_gradient_norm else f"method={penalty.method}"
        )
        yield (
            f"penalty.{chosen} subtracts two gradients, and their difference is lost "
            f"in the rounding of model.compute_dtype={compute_dtype}"
        )
    given = {
        # In every step: 1 says so, and 10 is the default.
        "penalty.update_every": penalty.update_every not in (1, 10),
        "penalty.start_epoch": penalty.start_epoch,
        "penalty.num_examples": penalty.num_examples,
        "sam.radius": config.sam.radius,
        "penalty.method": penalty.method != "exact",
        "penalty.batch_norm": penalty.batch_norm != "train",
    }
    for name, value in given.items():
        if is_gradient_norm and value:
            yield f"penalty.name=gradient_norm does not take {name}"
    if penalty.name == "fisher_single" and penalty.num_examples is not None:
        yield (
            "penalty.name=fisher_single uses one example and does not take "
            "penalty.num_examples"
        )


def model_keys(model: Model) -> dict[str, Any]:
    """Returns the keys that are given of those that the network's class takes."""
    return model.model_dump(exclude={"name", "compute_dtype"}, exclude_none=True)


def takers(key: str) -> list[str]:
    """Returns the models that take a key: whose class has a field of its name."""
    return [n for n, model in MODELS.items() if key in model.__dataclass_fields__]


class Key(NamedTuple):
    """What one key accepts; ``low`` and ``high`` are inclusive, ``above`` is not."""

    kind: str  # as JSON schema says: boolean, integer, number, string, array
    is_optional: bool  # None is allowed
    choices: tuple[str, ...]
    low: float | None
    above: float | None
    high: float | None
    unit: str
    default: Any
    explanation: str

    @property
    def description(self) -> str:
        """Type and range in words, as ``an integer of at least 1 or None``."""
        none = " or None" if self.is_optional else ""
        if self.choices:
            return "one of " + ", ".join(self.choices) + none
        text = {
            "boolean": "true or false",
            "integer": "an integer",
            "number": "a number",
            "string": "a text",
            "array": "integers",
        }[self.kind]
        if self.low is not None and self.high is not None:
            text += f" from {self.low:.10g} to {self.high:.10g}"
        elif self.low is not None:
            text += f" of at least {self.low:g}"
        if self.above is not None:
            text += f" above {self.above:g}"
            text += f" and at most {self.high:g}" if self.high is not None else ""
        return text + none


def all_keys() -> dict[str, Key]:
    """Returns every key by its whole name, as ``penalty.coefficient``, in order."""
    schema = Config.model_json_schema()
    keys: dict[str, Key] = {}
    for name, content in schema["properties"].items():
        if "$ref" not in content:
            keys[name] = _key(content)
            continue
        section = schema["$defs"][content["$ref"].rpartition("/")[2]]
        keys |= {f"{name}.{k}": _key(c) for k, c in section["properties"].items()}
    return keys


def _key(schema: Mapping[str, Any]) -> Key:
    """What JSON schema says of a key."""
    forms = schema.get("anyOf", [schema])
    form = next(form for form in forms if form["type"] != "null")
    bounds = form.get("items", form)
    return Key(
        kind=form["type"],
        is_optional=len(forms) > 1,
        choices=tuple(form.get("enum", ())),
        low=bounds.get("minimum"),
        above=bounds.get("exclusiveMinimum"),
        high=bounds.get("maximum"),
        unit=schema.get("unit", ""),
        default=schema["default"],
        explanation=" ".join(schema["description"].split()),
    )
