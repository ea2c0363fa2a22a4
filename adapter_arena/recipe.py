"""The recipe: one complete, named training set-up."""

import dataclasses
import typing
from dataclasses import dataclass

from adapter_arena.errors import RecipeError

DEFAULT_BASE = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run's outcome. Hyper-parameters a method does not use are ignored by it."""

    name: str
    """Name of the recipe and of the adapter folder it leaves."""
    method: str = "lora"
    """A key of methods.METHODS."""
    base_model: str = DEFAULT_BASE
    """Hub id of a supported base, or a local folder."""
    dataset: str = "stanfordnlp/imdb"
    """Hub id, a file, a folder of split files, or `sample`."""
    text_column: str | None = None
    """Column with the text; guessed when None."""
    label_column: str | None = None
    """Column with the label; guessed when None."""
    label_names: dict | None = None
    """Value in the label column -> name shown; values are their own names when None."""
    n_train: int | None = None
    """Training rows, balanced over classes; all when None."""
    n_validation: int | None = 2000
    """Most validation rows, scored after each epoch and used to fit the temperature."""
    n_test: int | None = None
    """Test rows, balanced over classes; all when None."""
    streaming: bool = False
    """Read no further into the dataset than n_train, n_validation and n_test need, in a shuffled order on the Hub."""
    epochs: int = 2
    batch_size: int = 16
    learning_rate: float = 1e-3
    """Peak, reached after `warmup` and then lowered linearly to 0."""
    warmup: float = 0.06
    """Share of the steps."""
    weight_decay: float = 0.01
    max_length: int = 256
    """Tokens a text may have; of longer ones the head and the tail are kept."""
    train_max_length: int | None = None
    """Tokens of a text while training, `max_length` when None. Trained on 256 and served with 384,
    LoRA on IMDb had 92.05 % on validation, against 91.15 % served with 256, at 2/3 of the time."""
    optimizer: str = "adamw"
    """`adamw`, or `paged_adamw_8bit` (bitsandbytes) where there is CUDA and `adamw` elsewhere."""
    precision: str = "auto"
    """Type to compute in: `auto` (the faster of the next two on this machine), `bf16`, `fp32`, or `fp16` (training on
    CUDA, over fp32 weights)."""
    attention: str = "eager"
    """Kernel while training: `eager` (the fastest on CPU), `sdpa` or `flash_attn` (CUDA and that package)."""
    lr_ratio: float | None = None
    """LoRA+: how many times the learning rate LoRA's B matrices are trained at; all at the same when None."""
    rank: int = 16
    """Of each low-rank update; VeRA: of the shared matrices; OFT: side of a block; prompt tuning: virtual tokens."""
    alpha: int = 32
    dropout: float = 0.0
    """Dropout of the adapter; the base's own is always off."""
    target_modules: str = "attention"
    """`attention`, `all-linear`, `ia3`, `norms`, or module names separated by commas."""
    seed: int = 42
    """Draws the new weights and the order of the training rows."""
    data_seed: int = 42
    """Draws which rows are kept and the splits that are carved: apart from `seed`, so that seeds share their data."""

    @property
    def num_labels(self) -> int:
        """Classes that the recipe names; two where it leaves them to the data."""
        return len(set(map(str, self.label_names.values()))) if self.label_names else 2


FIELDS = {field.name: field for field in dataclasses.fields(Recipe)}


CHOICES = {
    "optimizer": ("adamw", "paged_adamw_8bit"),
    "precision": ("auto", "bf16", "fp32", "fp16"),
    "attention": ("eager", "sdpa", "flash_attn"),
}


_TYPES = typing.get_type_hints(Recipe)


ROW_COUNTS = ("n_train", "n_validation", "n_test")


def check_types(fields: dict, source: str) -> None:
    """Raise RecipeError for a field whose value is of another type than Recipe's; strange fields are passed over."""
    for key, value in fields.items():
        if key in FIELDS and not (value == "all" and key in ROW_COUNTS) and not _fits(value, _TYPES[key]):
            kind = getattr(_TYPES[key], "__name__", _TYPES[key])
            raise RecipeError(f"{source}: {key} must be {kind}, not {_shown(value)}: mend that line.")


def _shown(value: object) -> str:
    return " ".join(f"{value!r:.60}".split())


def _fits(value: object, kind: type) -> bool:
    kinds = typing.get_args(kind) or (kind,)
    if isinstance(value, bool) or value is None:
        return type(value) in kinds
    return isinstance(value, kinds) or (isinstance(value, int) and float in kinds)


def of_results(content: dict) -> dict:
    """Return the recipe in the content of a results.json.

    Versions that did not record the compute type wrote `precision: bf16` in every recipe, whether chosen or not.
    """
    recipe = dict(content["recipe"])
    training = content.get("training")
    if isinstance(training, dict) and "compute" not in training and recipe.get("precision") == "bf16":
        recipe["precision"] = "auto"
    return recipe
