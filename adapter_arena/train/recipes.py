"""Recipes by name or file, merged as defaults < method < recipe file < command line."""

import json
import re
from pathlib import Path

import yaml

from adapter_arena import hub
from adapter_arena.errors import RecipeError, unknown
from adapter_arena.models import bases, memory, methods
from adapter_arena.recipe import DEFAULT_BASE, DEFAULTS, FIELDS, Recipe, of_results, validated, with_current_names
from adapter_arena.train import selection

FOLDER = Path(__file__).parent.parent / "recipes"
SUFFIXES = (".yaml", ".yml", ".json")
_HUB_RECIPE = re.compile(r"[\w.-]+/[\w.-]+(@\w+)?")
_LARGE_BASE = 300_000_000
_ABOUT = ("description", "reproduces", "reported")
_OF_THE_REPO = ("dataset_config", "train_split", "validation_split", "test_split")
"""How the recipe's dataset is arranged on the Hub, which says nothing about another dataset or a copy of it."""
_YAML_ERRORS = (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError)
"""PyYAML raises the last three for a tag whose value it cannot construct; ValueError: not JSON or not UTF-8."""


def names() -> list[str]:
    """Return the names of the recipes that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def describe(name: str) -> dict[str, str]:
    """Return a recipe's `description` and, for a published set-up, what it `reproduces` and what that `reported`."""
    content = _load(name)
    return {key: content[key] for key in _ABOUT if key in content}


def resolve(method: str | None = None, recipe: str | None = None, **overrides) -> tuple[Recipe, dict[str, str]]:
    """Merge defaults < method < recipe file < command line.

    `recipe` is a name from `names()`, or the path to a YAML file or a results.json. Returns the recipe and the source
    of each field that differs from its default. Raises RecipeError.
    """
    from_file = _fields(recipe) if recipe else {}
    method = method or from_file.get("method") or _default_method(overrides.get("base_model", DEFAULT_BASE))
    if recipe:
        name = from_file.get("name", Path(recipe).stem)
    else:
        name = _default_name(method, overrides)
        if _is_own(name):
            from_file = _fields(name)
    if "dataset" in overrides:
        from_file = {field: value for field, value in from_file.items() if field not in _OF_THE_REPO}
    if method != from_file.get("method", method):
        name = f"{name}-{method}"
    layers = {
        "method": methods.find(method).defaults | {"method": method},
        "recipe": from_file | {"method": method},
        "command line": with_current_names(overrides),
    }
    values: dict = {"name": name}
    origin: dict[str, str] = {}
    for source, layer in layers.items():
        values = _merged(values, layer)
        origin.update(dict.fromkeys(layer, source))
    resolved = validated(values, "on the command line")
    if resolved.lr_ratio is not None and method not in methods.WITH_B:
        raise RecipeError(
            f"lr_ratio is for LoRA and {method} has no B matrices: use {', '.join(methods.WITH_B)} or leave it out."
        )
    selection.check(resolved)
    for field, default in DEFAULTS.items():
        if getattr(resolved, field) == default:
            origin.pop(field, None)
    return resolved, origin


def local_file(source: str | None) -> str | None:
    """Return the name or file of a recipe; that of a Hub adapter is downloaded."""
    if source and _HUB_RECIPE.fullmatch(source) and not Path(source).suffix:
        return str(hub.recipe_of(source))
    return source


def _default_method(base_model: str) -> str:
    """Return `qlora` for a base model of more than 300 M parameters, which 16 bits make large, and `lora` for others."""
    base = bases.find(base_model)
    size = memory.estimate(base.full_config, base.architecture)
    return "qlora" if size.parameters > _LARGE_BASE else "lora"


def _merged(values: dict, layer: dict) -> dict:
    """Return `values` overridden by `layer`; `training_arguments` are merged by name."""
    below = dict(values.get("training_arguments", {}))
    above = layer.get("training_arguments", {})
    if not isinstance(above, dict):
        return values | layer  # an invalid value, which is refused later
    if "precision" in layer:
        below.pop("fp16", None)
    return values | layer | {"training_arguments": below | above}


def _is_own(name: str) -> bool:
    """Return whether there is a recipe of this name that was tuned for this project.

    Published set-ups, with their few rows and their own learning rates, are only used if named by the user.
    """
    return name in names() and "reproduces" not in describe(name)


def _default_name(method: str, overrides: dict) -> str:
    """Return `<base>-<dataset>-<method>`, the name of a run without a recipe file."""
    base = overrides.get("base_model", DEFAULT_BASE)
    dataset = overrides.get("dataset", DEFAULTS["dataset"])
    short = "minilm" if base == DEFAULT_BASE else Path(base).name.split("-")[0]
    name = f"{short}-{Path(dataset).resolve().stem}-{method}".lower()
    return re.sub(r"[^a-z0-9_-]+", "-", name)


def _fields(recipe: str) -> dict:
    """Return the recipe fields that a file sets. Raises RecipeError."""
    fields = _load(recipe)
    for key in _ABOUT:
        fields.pop(key, None)
    fields = with_current_names(fields)
    validated({"name": "unnamed"} | fields, f"in {recipe}")
    return fields


def _load(recipe: str) -> dict:
    """Return the content of a recipe file. Raises RecipeError."""
    path = Path(recipe) if Path(recipe).suffix in SUFFIXES else FOLDER / f"{recipe}.yaml"
    if not path.is_file():
        raise RecipeError(unknown("recipe", recipe, names()))
    try:
        text = path.read_text(encoding="utf-8")
        # YAML reads JSON's 5e-05 as a string, because its floats need a dot.
        content = json.loads(text) if path.suffix == ".json" else _load_yaml(text)
    except _YAML_ERRORS as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"Recipe {path} is not YAML: {reason}. Correct that line.") from error
    if not isinstance(content, dict):
        raise RecipeError(f"Recipe {path} must consist of `field: value` lines; known fields: {', '.join(FIELDS)}.")
    if path.suffix == ".json" and isinstance(content.get("recipe"), dict):
        return of_results(content)  # the results of a run repeat it
    return content


class _LiteralLoader(yaml.SafeLoader):
    """Reads every scalar as a string, as it is written."""


_LiteralLoader.yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}  # `<<` merges mappings


def _load_yaml(text: str) -> object:
    """Return the content of a YAML file, with `label_names` as they are written: YAML reads yes, no, on and off as booleans."""
    content = yaml.safe_load(text)
    if isinstance(content, dict) and isinstance(content.get("label_names"), dict):
        content["label_names"] = yaml.load(text, _LiteralLoader)["label_names"]
    return content
