"""A recipe: one complete, named training set-up, merged as defaults < method < recipe file < command line."""

import json
import math
import re
from pathlib import Path

import yaml

from adapter_arena.errors import RecipeError, unknown
from adapter_arena.models import methods
from adapter_arena.recipe import CHOICES, DEFAULT_BASE, FIELDS, ROW_COUNTS, Recipe, check_types, of_results

FOLDER = Path(__file__).parent.parent / "recipes"
SUFFIXES = (".yaml", ".yml", ".json")


_UNBUILT = (TypeError, AttributeError, RecursionError)
"""What PyYAML raises besides its own errors for a tag whose value it cannot build."""
_ABOUT = ("description", "reproduces", "reported")
_POSITIVE = ("epochs", "batch_size", *ROW_COUNTS, "rank", "alpha")


def names() -> list[str]:
    """Names of the recipe files that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def describe(name: str) -> dict[str, str]:
    """What the recipe file says of itself: `description` and, for a known set-up, `reproduces` and `reported`."""
    content = _load(name)
    return {key: content[key] for key in _ABOUT if key in content}


def resolve(method: str | None = None, recipe: str | None = None, **overrides) -> tuple[Recipe, dict[str, str]]:
    """Merge defaults < method < recipe file < command line.

    `recipe` is a name from `names()`, a path to a YAML file or a results.json; None values in `overrides` are not
    set. Returns the recipe and, for each field that is not the default, where its value came from.
    Raises RecipeError.
    """
    overrides = {key: value for key, value in overrides.items() if value is not None}
    from_file = _read(recipe) if recipe else {}
    method = method or from_file.get("method") or "lora"
    stem = from_file.get("name", Path(recipe).stem) if recipe else _stem(method, overrides)
    # A known set-up, with its few rows and its own rates, is taken only when it is asked for by name.
    if not recipe and stem in names() and "reproduces" not in describe(stem):
        recipe, from_file = stem, _read(stem)
    if method != from_file.get("method", method):
        stem += f"-{method}"
    layers = {
        "method": methods.find(method).defaults | {"method": method},
        "recipe": from_file | {"method": method},
        "command line": overrides,
    }
    values, origin = {"name": stem}, {}
    for source, layer in layers.items():
        for key, value in layer.items():
            if key not in FIELDS:
                raise RecipeError(f"{recipe}: {unknown('field', str(key), FIELDS)}")
            values[key] = None if value == "all" and key in ROW_COUNTS else value
            origin[key] = source
    resolved = Recipe(**values)
    _check(resolved)
    return resolved, {key: origin[key] for key in origin if values[key] != FIELDS[key].default}


def _stem(method: str, overrides: dict) -> str:
    """`<base>-<dataset>-<method>`, the name of a run that has no recipe file."""
    base, dataset = overrides.get("base_model", DEFAULT_BASE), overrides.get("dataset", FIELDS["dataset"].default)
    short = "minilm" if base == DEFAULT_BASE else Path(base).name.split("-")[0]
    return re.sub(r"[^a-z0-9_-]+", "-", f"{short}-{Path(dataset).resolve().stem}-{method}".lower())


def _read(recipe: str) -> dict:
    """The fields a recipe file sets."""
    fields = {key: value for key, value in _load(recipe).items() if key not in _ABOUT}
    check_types(fields, recipe)
    return fields


def _load(recipe: str) -> dict:
    path = Path(recipe) if Path(recipe).suffix in SUFFIXES else FOLDER / f"{recipe}.yaml"
    if not path.is_file():
        raise RecipeError(unknown("recipe", recipe, names()))
    try:
        text = path.read_text(encoding="utf-8")
        # YAML takes JSON's 5e-05 for a string: it wants a dot in a float.
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, *_UNBUILT) as error:  # ValueError: not JSON, not UTF-8
        raise RecipeError(f"Recipe {path} is not YAML: {' '.join(str(error).split())}. Mend that line.") from error
    if not isinstance(content, dict):
        raise RecipeError(f"Recipe {path} must be a list of `field: value` lines; known fields: {', '.join(FIELDS)}.")
    if path.suffix == ".json" and isinstance(content.get("recipe"), dict):
        return of_results(content)  # a run's results.json is a recipe too: it repeats that run
    return content


def _check(recipe: Recipe) -> None:
    for name in _POSITIVE:
        value = getattr(recipe, name)
        if value is None and name in ROW_COUNTS:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise RecipeError(f"{name} must be a whole number of at least 1, not {value!r}.")
    for name in ("learning_rate", "weight_decay", "warmup", "dropout"):
        value = getattr(recipe, name)
        if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise RecipeError(f"{name} must be a finite number of at least 0, not {value!r}.")
    if recipe.learning_rate == 0 or recipe.learning_rate > 1:
        raise RecipeError(f"learning_rate must be above 0 and at most 1, not {recipe.learning_rate}; 1e-3 suits LoRA.")
    if recipe.dropout >= 1 or recipe.warmup >= 1:
        raise RecipeError("dropout and warmup are shares: they must be below 1.")
    for name, known in CHOICES.items():
        if getattr(recipe, name) not in known:
            raise RecipeError(unknown(name, str(getattr(recipe, name)), known))
    if recipe.lr_ratio is not None and not (isinstance(recipe.lr_ratio, int | float) and 1 <= recipe.lr_ratio <= 1000):
        raise RecipeError(f"lr_ratio must be a number from 1 to 1000, not {recipe.lr_ratio!r}; 16 suits LoRA+.")
    if recipe.lr_ratio is not None and recipe.method not in methods.WITH_B:
        raise RecipeError(
            f"lr_ratio is LoRA's: {recipe.method} has no B matrices; use {', '.join(methods.WITH_B)} or leave it out."
        )
    for name in ("seed", "data_seed"):
        if not (isinstance(getattr(recipe, name), int) and 0 <= getattr(recipe, name) < 2**32):
            raise RecipeError(f"{name} must be a whole number from 0 to {2**32 - 1:,}, not {getattr(recipe, name)}.")
    for name in ("max_length", "train_max_length"):
        value = getattr(recipe, name)
        if not (value is None and name == "train_max_length") and not (isinstance(value, int) and 8 <= value <= 8192):
            raise RecipeError(f"{name} must be a whole number of tokens from 8 to 8192, not {value!r}.")
    if not str(recipe.target_modules).strip(" ,"):
        raise RecipeError("target_modules is empty: name attention, all-linear, ia3, norms or module names.")
    check_name(recipe.name)


def check_name(name: str) -> None:
    """Raise RecipeError for what cannot be the name of a folder of ours."""
    if Path(name).name != name or "." in name or not name:
        raise RecipeError(f"name {name!r} must be a plain folder name without dots or slashes.")
