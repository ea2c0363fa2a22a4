"""The trainer's command line: its flags, most of them generated from the fields of a recipe."""

import atexit
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from adapter_arena.errors import ArenaError, RecipeError, Terminated
from adapter_arena.recipe import DATA_FIELDS, DEFAULTS, DESCRIPTIONS, FIELDS, ROW_COUNTS, value_type

TRACKERS = ("none", "tensorboard", "trackio", "wandb", "codecarbon")
_INTERRUPTED = 130
_PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}
# Flags that have no effect with a command.
_PUSH_FLAGS = ("namespace", "repo_id", "private", "overwrite", "language", "license")
_FIXED_BY_COMPARE = ("method", "recipe", "sweep", "report_to", "push", *_PUSH_FLAGS)
_FIXED_BY_SWEEP = ("report_to", "push", *_PUSH_FLAGS, "resume")
_FIXED_BY_EVALUATE = ("recipe", *sorted(set(FIELDS) - {"dataset", "base_model", *DATA_FIELDS}))


class RowCount(click.ParamType):
    """A number of rows, or `all`."""

    name = "integer|all"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int | str:
        """Return the number, or `all`."""
        if value == "all":
            return value
        return click.INT.convert(value, param, context)


class RowCounts(RowCount):
    """One number of rows as RowCount, or several different ones separated by commas."""

    name = "integer|all[,...]"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        """Return one number or `all`, or a tuple of them if there are several."""
        if not isinstance(value, str) or "," not in value:
            return super().convert(value, param, context)
        numbers = tuple(super(RowCounts, self).convert(part.strip(), param, context) for part in value.split(","))
        if len(set(numbers)) < len(numbers):
            self.fail(f"{value!r} has a number twice.", param, context)
        return numbers


class KeyValue(click.ParamType):
    """A pair `key=value`, whose value is JSON if it can be parsed as JSON, and text otherwise."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> tuple[str, Any]:
        """Return the key and its value: an int for `5`, True for `true`, text for `adamw_torch`."""
        key, equals, text = value.partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not key=value.", param, context)
        try:
            return key, json.loads(_PYTHON_WORDS.get(text, text))
        except ValueError:
            return key, text


def _recipe_option(name: str) -> click.Option:
    flags = [name, f"--{name.replace('_', '-')}"]
    if name == "learning_rate":
        flags.append("--lr")
    kind = value_type(name)
    description = DESCRIPTIONS[name].removesuffix(".").replace("`", "")
    if DEFAULTS.get(name):
        description += f" [default: {DEFAULTS[name]}]"
    if kind is dict:
        return click.Option(flags, type=KeyValue(), multiple=True, help=f"{description} (repeatable)")
    if kind is bool:
        return click.Option(flags, is_flag=True, default=None, help=description)
    accepted = RowCount() if name in ROW_COUNTS else kind
    if name == "n_train":
        accepted = RowCounts()
        description += "; several numbers (16,64,all) with --compare"
    return click.Option(flags, type=accepted, help=description)


@click.command(
    context_settings={"token_normalize_func": lambda flag: flag.replace("_", "-"), "max_content_width": 120},
    params=[_recipe_option(name) for name in FIELDS],
)
@click.option("--recipe", help="Name from --list-recipes, YAML file, results.json or Hub adapter to repeat")
@click.option("--optimizer", hidden=True)  # of earlier versions; now a training argument
@click.option("--output-dir", type=Path, default="adapters", help="Parent of the adapter folder [default: adapters]")
@click.option("--resume", is_flag=True, help="Continue an interrupted run")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the resolved recipe, the classes of local data and the parameter counts, and exit",
)
@click.option("--json", "as_json", is_flag=True, hidden=True)  # with --dry-run: only the runs and their memory, as JSON
@click.option("--report-to", type=click.Choice(TRACKERS), default="none", help="Where to report metrics")
@click.option("--share-texts", is_flag=True, help="Allow excerpts of a local dataset in results and card")
@click.option("--push", is_flag=True, help="Publish the adapter on the Hub after training")
@click.option("--namespace", help="Hub user or organisation to publish under (default: the token's)")
@click.option("--repo-id", metavar="USER/NAME", help="Hub repo to publish to (default: the name of the adapter)")
@click.option("--private", is_flag=True, help="Create the Hub repo as a private one")
@click.option("--overwrite", is_flag=True, help="Replace files of the Hub repo that this project did not write")
@click.option("--language", help="Language of the texts for the model card, for example fr")
@click.option("--license", help="Licence of the adapter for the model card, for example mit")
@click.option("--list-recipes", is_flag=True, help="Print the recipes and exit")
@click.option("--evaluate", metavar="NAME", help="Measure an adapter (name or path) again, or on another --dataset")
@click.option("--export", metavar="NAME", help="Write an adapter (name or path) as a plain model to exports/NAME")
@click.option("--format", default="merged", help="Format of --export: merged (transformers, default) or onnx")
@click.option("--push-only", metavar="NAME", help="Publish an adapter (name or path) that is already trained")
@click.option("--compare", metavar="METHODS", help="Train several methods or recipes (lora,ia3,full) on the same data")
@click.option("--seeds", default="3", help="Seeds per method of --compare (default 3), or one number for each method")
@click.option(
    "--sweep",
    metavar="FIELD=VALUES...",
    multiple=True,
    help="Choose hyper-parameters on validation: learning_rate=1e-3,5e-4 batch_size=4,8 or learning_rate=1e-5..1e-2",
)
@click.option("--trials", type=int, help="Maximum trials of --sweep (default: every combination of the values)")
@click.option("--storage", help="File or database URL that the processes of a sweep share")
@click.argument("values", nargs=-1, metavar="")  # --sweep accepts several values
@click.pass_context
def command(context: click.Context, **flags: Any) -> int:
    """Fine-tune an adapter, measure it as it will be served, and save it to adapters/.

    Methods and recipes have their own defaults for some of the flags.

    \b
    python train_space.py --method lora --dataset sample
    python train_space.py --recipe minilm-imdb-lora --dataset path/to/imdb
    python train_space.py --method lora --dataset reviews.csv --text-column body --label-column stars
    """
    resume = "again" if flags["compare"] or flags["sweep"] else "with --resume"
    try:
        return _run(context, flags)
    except KeyboardInterrupt as interrupt:
        print(f"\ninterrupted: the same command {resume} continues from the last checkpoint", file=sys.stderr)
        return getattr(interrupt, "exit_code", _INTERRUPTED)


def _run(context: click.Context, flags: dict) -> int:
    """Run the command that the flags select, and return the exit status. Raises ArenaError, click.ClickException."""
    list_recipes = flags.pop("list_recipes")
    evaluate = flags.pop("evaluate")
    export = flags.pop("export")
    push_only = flags.pop("push_only")
    compare = flags.pop("compare")
    sweep = flags.pop("sweep")
    values = flags.pop("values")
    if values and not sweep:
        raise click.UsageError(f"Unexpected argument {values[0]!r}.")
    fields = _recipe_fields(flags)
    row_counts = _pop_row_counts(fields)
    if row_counts and not compare:
        raise RecipeError("--n-train with several numbers needs --compare: give one number, or add --compare METHODS.")
    push_flags = {name: flags.pop(name) for name in _PUSH_FLAGS}
    # Imported here because --help does not need PyTorch, which takes seconds to import.
    from adapter_arena import hub
    from adapter_arena.adapters import cards
    from adapter_arena.train import commands

    card_facts = cards.StatedFacts(push_flags.pop("language"), push_flags.pop("license"))
    push_options = hub.PushOptions(**push_flags)
    options = commands.Options(
        fields=fields, row_counts=row_counts, push_options=push_options, card_facts=card_facts, **flags
    )
    if list_recipes:
        commands.list_recipes()
    elif evaluate:
        _check_no_effect(context, "--evaluate, which keeps the recipe", _FIXED_BY_EVALUATE)
        commands.evaluate(evaluate, options)
    elif export:
        commands.export(export, options)
    elif push_only:
        folder = commands.find_folder(push_only, options.output_dir)
        return commands.publish(folder, options)
    elif compare:
        _check_no_effect(context, "--compare", _FIXED_BY_COMPARE)
        commands.compare(compare, options)
    elif sweep:
        _check_no_effect(context, "--sweep", _FIXED_BY_SWEEP)
        commands.sweep([*sweep, *values], options)
    else:
        if not flags["push"]:
            _check_no_effect(context, "a training without --push", _PUSH_FLAGS)
        return commands.train(options)
    return 0


def _recipe_fields(flags: dict) -> dict:
    """Remove the recipe fields other than `method` from the flags, and return those that the user set."""
    fields = {}
    for name in FIELDS:
        if name == "method":
            continue
        value = flags.pop(name)
        if value_type(name) is dict:
            value = dict(value) or None  # click collects the pairs of a repeatable flag in a tuple
        if value is not None:
            fields[name] = value
    optimizer = flags.pop("optimizer")
    if optimizer:
        name = "adamw_torch" if optimizer == "adamw" else optimizer
        fields["training_arguments"] = {"optim": name} | fields.get("training_arguments", {})
    return fields


def _pop_row_counts(fields: dict) -> tuple[int | str, ...]:
    """Remove `n_train` from the fields and return it if it is several numbers; otherwise return no numbers."""
    if isinstance(fields.get("n_train"), tuple):
        return fields.pop("n_train")
    return ()


def _check_no_effect(context: click.Context, action: str, names: tuple[str, ...]) -> None:
    """Raise RecipeError if the user set a flag that has no effect with the action."""
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise RecipeError(f"--{name.replace('_', '-')} has no effect with {action}: leave it out.")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status; an error is one line on stderr."""
    if int(os.environ.get("RANK", 0)):  # only the first of several processes prints
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the rest of this process
    try:
        return command.main(arguments, prog_name="train_space.py", standalone_mode=False)
    except click.ClickException as error:
        print(f"error: {error.format_message()} See --help.", file=sys.stderr)
        return 1
    except ArenaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _terminate(*_: Any) -> NoReturn:
    raise Terminated


def run_and_exit() -> NoReturn:
    """Run the command line as a process: SIGTERM is handled like Ctrl-C, and the exit status is that of `main`."""
    signal.signal(signal.SIGTERM, _terminate)
    status = main()
    # Python's own teardown sometimes aborted ("terminate called without an active exception"), most likely because of
    # a thread that was stopped inside PyTorch's C++.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
