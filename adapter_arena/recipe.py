"""The recipe: one complete, named training set-up."""

import dataclasses
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError
from pydantic.dataclasses import dataclass

from adapter_arena.errors import RecipeError, invalid_value, unknown

DEFAULT_BASE = "sentence-transformers/all-MiniLM-L6-v2"
ROW_COUNTS = ("n_train", "n_validation", "n_test")
"""Fields that accept `all`, which is the same as None."""


DATA_FIELDS = (
    "dataset_config",
    "train_split",
    "validation_split",
    "test_split",
    "text_column",
    "text_pair_column",
    "label_column",
    "label_names",
    "n_test",
)
"""Fields that say how to read a data set and how many of its test rows to score."""


def check_name(name: str) -> str:
    """Return the name of an adapter folder. Raise RecipeError if it is not a plain folder name."""
    if Path(name).name != name or "." in name or not name:
        raise RecipeError(f"name {name!r} must be a plain folder name without dots or slashes.")
    return name


def _check_target_modules(names: str) -> str:
    if not names.strip(" ,"):
        raise RecipeError("target_modules is empty: name attention, all-linear, ia3, norms or module names.")
    return names


def _none_if_all(rows: Any) -> Any:
    return None if rows == "all" else rows


Positive = Annotated[int, Field(ge=1)]
RowCount = Annotated[int | None, Field(ge=1), BeforeValidator(_none_if_all)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid", use_attribute_docstrings=True))
class Recipe:
    """Everything that determines a run's result. A method ignores the hyper-parameters that it does not use.

    Raises pydantic.ValidationError or RecipeError. The docstrings of the fields are the help of the command line.
    """

    name: Annotated[str, AfterValidator(check_name)]
    """Name of the recipe and of its adapter folder."""
    method: str = "lora"
    """Fine-tuning method: lora, full, qlora, ia3, dora or another that README.md lists."""
    base_model: str = DEFAULT_BASE
    """Hub id of a supported base model, or a local folder."""
    dataset: str = "stanfordnlp/imdb"
    """Hub id, .csv/.tsv/.jsonl/.parquet file, folder of split files, or `sample`."""
    dataset_config: str | None = None
    """Configuration of a dataset that has several."""
    train_split: str | None = None
    """Split, or file of a folder, to train on; found by its name if not set."""
    validation_split: str | None = None
    """Split, or file of a folder, to validate on; found by its name if not set."""
    test_split: str | None = None
    """Split, or file of a folder, to test on; found by its name if not set."""
    text_column: str | None = None
    """Column with the text; detected if not set."""
    text_pair_column: str | None = None
    """Column with the second text, for pairs of texts; detected if neither text column is set."""
    label_column: str | None = None
    """Column with the label, or several columns of 0 and 1, `a,b,c`; detected if not set."""
    task: Literal["single-label", "multi-label", "regression"] | None = None
    """What a label is: single-label, multi-label or regression; decided from the label column if not set."""
    label_names: dict | None = None
    """Display name of each value in the label column; the values themselves if not set."""
    n_train: RowCount = None
    """Number of training rows, balanced over classes, or `all`."""
    n_validation: RowCount = 2000
    """Maximum number of validation rows, which are scored after each epoch and used to fit the temperature."""
    n_test: RowCount = None
    """Number of test rows, balanced over classes, or `all`."""
    streaming: bool = False
    """Read only as much of the dataset as n_train, n_validation and n_test need, on the Hub in shuffled order."""
    epochs: Positive = 2
    """Number of passes over the training rows."""
    batch_size: Positive = 16
    """Rows per optimizer step, over all processes."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    """Peak learning rate, reached after the warm-up and then decayed linearly to 0."""
    warmup: Fraction = 0.06
    """Fraction of the steps that warm up the learning rate."""
    weight_decay: NotNegative = 0.01
    """Weight decay of AdamW."""
    class_weights: Literal["balanced", "none"] = "none"
    """Weights of the classes in the training loss: balanced (each class contributes equally) or none."""
    metric: str | None = None
    """Keep the weights of the best epoch by accuracy, macro_f1 or loss on validation; those of the last if not set."""
    patience: Annotated[int | None, Field(ge=1)] = None
    """Stop after this many epochs without a better `metric`; all epochs are trained if not set."""
    max_length: Annotated[int, Field(ge=8, le=8192)] = 256
    """Maximum tokens of a text; longer texts are truncated in the middle."""
    # Trained on 256 and served with 384, LoRA on IMDb had 92.05 % on validation, against 91.15 % served with 256,
    # at 2/3 of the time of training on 384.
    train_max_length: Annotated[int | None, Field(ge=8, le=8192)] = None
    """Maximum tokens of a text while training; `max_length` if not set."""
    training_arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """Further arguments of transformers.TrainingArguments, for example optim=paged_adamw_8bit or fp16=true."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Compute type: auto (the faster of the other two on this machine), bf16 or fp32."""
    attention: Literal["eager", "sdpa", "flash_attn"] = "eager"
    """Attention kernel while training: eager (the fastest on CPU), sdpa or flash_attn (CUDA only)."""
    lr_ratio: Annotated[float | None, Field(ge=1, le=1000)] = None
    """Learning rate of LoRA's B matrices over that of the A matrices (LoRA+); equal if not set."""
    rank: Positive = 16
    """Rank of the low-rank updates (VeRA: of the shared matrices; OFT: block size; prompt: number of virtual tokens)."""
    alpha: Positive = 32
    """LoRA's alpha: updates are scaled by alpha / rank."""
    dropout: Fraction = 0.0
    """Dropout of the adapter; the base model's own is always off."""
    target_modules: Annotated[str, AfterValidator(_check_target_modules)] = "attention"
    """Layers to adapt: attention, all-linear, ia3, norms, or module names separated by commas."""
    seed: Seed = 42
    """Seed of the new weights and of the order of the training rows."""
    data_seed: Seed = 42
    """Seed of the selected rows and splits; separate from `seed`, so that runs with several seeds share their data."""

    @property
    def num_labels(self) -> int:
        """Number of classes in `label_names`; two if that is not set."""
        if not self.label_names:
            return 2
        return len({str(name) for name in self.label_names.values()})


FIELDS = {field.name: field for field in dataclasses.fields(Recipe)}
DEFAULTS = dataclasses.asdict(Recipe(name="default"))
"""Default of each field except `name`, which has none."""
del DEFAULTS["name"]
DESCRIPTIONS = {name: field.description for name, field in Recipe.__pydantic_fields__.items()}
"""Docstring of each field."""


def value_type(name: str) -> type:
    """Return the Python type of a field's values: int, float, bool, str or dict."""
    annotation = Recipe.__pydantic_fields__[name].annotation
    if isinstance(annotation, types.UnionType):
        annotation = typing.get_args(annotation)[0]
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return str
    return origin or annotation


def with_current_names(fields: dict) -> dict:
    """Return a recipe's fields with those of earlier versions translated into `training_arguments`.

    These were `optimizer: adamw` (the default) or `paged_adamw_8bit`, and `precision: fp16`.
    """
    current = dict(fields)
    translated = {}
    optimizer = current.pop("optimizer", "adamw")
    if optimizer != "adamw":
        translated["optim"] = optimizer
    if current.get("precision") == "fp16":
        current["precision"] = "auto"
        translated["fp16"] = True
    given = current.get("training_arguments", {})
    if translated and isinstance(given, dict):
        current["training_arguments"] = translated | given
    return current


def known_fields(recorded: dict) -> dict:
    """Return the fields of a recipe as another version recorded it: current names, without unknown fields."""
    known = {}
    for key, value in with_current_names(recorded).items():
        if key in FIELDS:
            known[key] = value
    return known


def validated(fields: dict, place: str) -> Recipe:
    """Return the recipe with these fields. Raises RecipeError for an unknown field or an invalid value.

    `place` tells the user where to correct it: `in recipe.yaml`, or `on the command line`.
    """
    unknown_fields = [str(key) for key in fields if key not in FIELDS]
    if unknown_fields:
        raise RecipeError(f"{unknown('field', unknown_fields[0], FIELDS)} Correct it {place}.")
    try:
        return Recipe(**fields)
    except ValidationError as error:
        raise RecipeError(f"{invalid_value(error)}: correct it {place}.") from error


def of_results(content: dict) -> dict:
    """Return the recipe in the content of a results.json.

    Versions that did not record the compute type wrote `precision: bf16` in every recipe, even if it was not set.
    """
    recipe = dict(content["recipe"])
    training = content.get("training")
    if not isinstance(training, dict):
        return recipe
    if training.get("compute") is None and recipe.get("precision") == "bf16":
        recipe["precision"] = "auto"
    return recipe
