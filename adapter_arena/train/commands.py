"""What the command line does: train, compare, sweep, evaluate, export, publish and list recipes."""

import importlib.util
import json
import shlex
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCardData

from adapter_arena import hub, machine, results, stats, tasks
from adapter_arena.adapters import cards, store
from adapter_arena.adapters import export as exporting
from adapter_arena.data import load, sample, sources, summary
from adapter_arena.errors import ArenaError, RecipeError, shortened_list
from adapter_arena.recipe import Recipe, check_name
from adapter_arena.serve import parity
from adapter_arena.train import compare as comparing
from adapter_arena.train import out_of_domain, plans, recipes, rows_curve, run
from adapter_arena.train import sweep as sweeping
from adapter_arena.train.trainable import count_parameters, estimate_memory

_DASHBOARDS = {"trackio": "trackio show --project adapter-arena", "tensorboard": "tensorboard --logdir runs/logs"}
_PARITY_TEXTS = 64


@dataclass(frozen=True)
class Options:
    """The flags of the command line that are not fields of a recipe, and the fields that it sets."""

    fields: dict
    """Recipe fields other than `method`."""
    row_counts: tuple[int | str, ...]
    """Several numbers of training rows, or `all`, for a comparison; empty if there is at most one, which is a field."""
    method: str | None
    recipe: str | None
    output_dir: Path
    resume: bool
    dry_run: bool
    as_json: bool
    report_to: str
    share_texts: bool
    push: bool
    push_options: hub.PushOptions
    card_facts: cards.StatedFacts
    seeds: str
    trials: int | None
    storage: str | None
    format: str


def list_recipes() -> None:
    """Print each recipe's name and description and, for a published set-up, what it reproduces and its figure."""
    names = recipes.names()
    width = max(len(name) for name in names)
    for name in names:
        about = recipes.describe(name)
        print(f"{name:{width}} {about.pop('description')}")
        for key, text in about.items():
            print(f"{'':{width}} {key}: {text}")


def train(options: Options) -> int:
    """Print the resolved recipe with the source of each value, then train it.

    A dry run prints what a run prints about local data, and counts the parameters, without network and weights.
    """
    _check_tracker(options.report_to)
    recipe, origin = recipes.resolve(options.method, recipes.local_file(options.recipe), **options.fields)
    if options.dry_run and options.as_json:
        _print_as_json([recipe])
        return 0
    for name, value in vars(recipe).items():
        print(f"{name:18} {value!s:40} {origin.get(name, 'default')}")
    if options.dry_run:
        trainable, total = count_parameters(recipe, _print_data(recipe))
        print(f"trainable parameters {trainable:,} of {total:,} ({100 * trainable / total:.2f} %)")
        needed = estimate_memory(recipe)
        print(
            f"base model {needed.base.megabytes:,.0f} MB as --method {recipe.method} trains it, and up to "
            f"{needed.step_mb:,.0f} MB for a batch"
        )
        return 0
    target = None
    if options.push and machine.is_main_process():  # before the training, which may take hours
        target = hub.check_target(recipe.name, options.push_options, cards.early_metadata(recipe, options.card_facts))
        if target.note:
            print(f"note: {target.note}", flush=True)
    folder = run.train(recipe, options.output_dir, options.resume, options.report_to, options.share_texts)
    if not machine.is_main_process():
        return 0
    _print_accuracy(folder)
    if options.report_to in _DASHBOARDS:
        print(f"curves: {_DASHBOARDS[options.report_to]}")
    status = publish(folder, options, target) if options.push else 0
    _print_shortcomings(folder)
    return status


def _print_as_json(planned: list[Recipe]) -> None:
    """Print the runs in one line of JSON, with their parameters and memory. The data are not read."""
    runs = []
    counts: dict[str, dict] = {}
    for recipe in planned:
        if recipe.method not in counts:
            trainable, total = count_parameters(recipe)
            needed = estimate_memory(recipe)
            megabytes = needed.base.megabytes + needed.step_mb
            counts[recipe.method] = {"trainable": trainable, "total": total, "megabytes": megabytes}
        fields = {name: getattr(recipe, name) for name in ("name", "method", "epochs", "batch_size", "max_length")}
        runs.append(fields | counts[recipe.method])
    print(json.dumps(runs))


def _print_data(recipe: Recipe) -> int:
    """Print what a run prints about its data, and return the number of classes. Data of the Hub are not read."""
    if not sources.is_local(recipe.dataset):
        print(f"data         {recipe.dataset} of the Hub is not read by a dry run")
        return recipe.num_labels
    splits = load.load_splits(recipe)
    print("\n".join(summary.lines(splits)))
    run.check_task(recipe, splits)
    return len(splits.labels)


def evaluate(adapter: str, options: Options) -> None:
    """Measure an adapter again on its own data, or score it on another data set that --dataset names.

    Its own data are those that its results name or, for local data, --dataset of the same name.
    """
    folder = find_folder(adapter, options.output_dir)
    path = folder / results.FILE
    if not path.is_file():
        raise RecipeError(f"There is no {path}: only adapters that this trainer made can be measured again.")
    recipe, _ = recipes.resolve(recipe=str(path), **options.fields)
    found = results.read(folder)
    other = out_of_domain.find_other(found, recipe, options.fields)
    if other:
        print(f"{other.dataset} is another data set than {found.dataset.id}: the adapter's own evaluation is kept")
        dataset, measured = out_of_domain.measure(folder.name, other, folder.parent)
        print(out_of_domain.describe(found, dataset, measured))
        return
    print(f"{recipe.dataset} is taken for the adapter's own data: it is measured again", flush=True)
    folder = run.measure_again(folder.name, recipe, folder.parent, options.share_texts)
    _print_accuracy(folder)
    _print_shortcomings(folder)


def export(adapter: str, options: Options) -> None:
    """Write an adapter as a plain model, compare its predictions with the served ones, and print how to serve it."""
    source = find_folder(adapter, options.output_dir)
    adapter, base = store.read_with_base(source, options.fields.get("base_model"))
    folder = exporting.write(adapter, base, Path("exports") / source.name, options.format)
    texts = sample.make(_PARITY_TEXTS)["text"].tolist()
    if adapter.takes_pairs:
        texts = list(zip(texts, reversed(texts)))
    change = parity.largest_difference(folder, adapter, base, texts)
    scores = "numbers" if adapter.scale else "probabilities"
    print(f"{folder}: {scores} differ by at most {change:.4f} from the served adapter on {len(texts)} generated texts")
    for engine, line in exporting.SERVING_COMMANDS.items():
        print(f"{engine}: {line.format(folder=folder)}")
    if adapter.takes_pairs:
        for engine, line in exporting.PAIR_CALLS.items():
            print(f"a pair with {engine}: {line.format(folder=folder)}")


def find_folder(adapter: str, output_dir: Path) -> Path:
    """Return the folder of an adapter: a name in `output_dir`, or a path in the style of any system.

    Raises RecipeError if there is no such folder.
    """
    for text in (adapter, adapter.replace("\\", "/")):
        path = Path(text)
        if path.name in ("", "..") and text:  # `.`, from inside the folder
            path = path.resolve()
        if path.name and (output_dir / path).is_dir():
            return output_dir / path
        if path.name != text and path.is_dir():
            return path
    known = shortened_list([path.name for path in store.folders(output_dir)]) or "none so far"
    raise RecipeError(
        f"There is no adapter folder {adapter!r}: name an adapter of {output_dir} ({known}), or its path."
    )


def compare(wanted: str, options: Options) -> None:
    """Train each method or recipe with several seeds on the same data, and write a report.

    With several numbers of training rows, do so for each of them.
    """
    fields = dict(options.fields)
    comparison = fields.pop("name", None)
    if comparison is not None:
        check_name(comparison)
    if options.row_counts:
        planned = plans.make_by_rows(wanted, options.seeds, fields, options.row_counts)
        default_name = f"{plans.default_name(_all_recipes(planned)[0], suffixes=2)}-rows"
    else:
        planned = [plans.make(wanted, options.seeds, fields)]
        default_name = plans.default_name(_all_recipes(planned)[0], suffixes=1)
    for plan in planned:
        comparing.check(plan)
    if options.dry_run and options.as_json:
        _print_as_json(_all_recipes(planned))
        return
    for recipe in _all_recipes(planned):
        rows = f" epochs {recipe.epochs}" if options.row_counts else ""
        print(f"{recipe.name:32} {recipe.method:8} lr {recipe.learning_rate:g} seed {recipe.seed}{rows}")
    if options.dry_run:
        _print_data(_all_recipes(planned)[0])
        return
    comparison = comparison or default_name
    folder = Path("comparisons") / comparison
    if options.row_counts:
        rows_curve.run(comparison, planned, folder, options.share_texts, options.output_dir)
    else:
        comparing.run(comparison, planned[0], folder, options.share_texts, options.output_dir)
    print(f"report: {folder / 'report.md'}")


def _all_recipes(planned: list[dict[str, list[Recipe]]]) -> list[Recipe]:
    return [recipe for plan in planned for runs in plan.values() for recipe in runs]


def sweep(space: list[str], options: Options) -> None:
    """Train with each combination of values, scored on the validation split, and write the best recipe to a file."""
    recipe = recipes.local_file(options.recipe)
    fields = dict(options.fields)
    name = fields.pop("name", None)
    if name is None:
        base, _ = recipes.resolve(options.method, recipe, **fields)
        name = f"{base.name}-sweep"
    plan = sweeping.Plan(name, fields, options.method, recipe, sweeping.parse_space(space), options.trials)
    if options.dry_run:
        dimensions = [f"{field} in {values}" for field, values in plan.space.items()]
        print(f"{plan.name}: {', '.join(dimensions)}")
        _print_data(plan.first_recipe)
        return
    path = sweeping.run_sweep(plan, options.storage)
    print(f"best recipe: {path}\ntrain it: python train_space.py --recipe {path}")


def publish(folder: Path, options: Options, target: hub.Target | None = None) -> int:
    """Push an adapter folder, to a target that was checked before if there was a training.

    If that fails, the folder is unchanged and the command to retry is printed.
    """
    try:
        if target is None:
            card = _card_of(folder, options.card_facts)
            target = hub.check_target(folder.name, options.push_options, card, folder)
        pushed = _push(folder, target, options.card_facts)
    except ArenaError as error:
        print(f"error: {error}", file=sys.stderr)
        print(
            f"The adapter in {folder} is complete; to push it later: {_retry_command(folder, options)}", file=sys.stderr
        )
        return error.exit_code
    if target.note:
        print(f"note: {target.note}")
    print(f"published{' (private)' if pushed.private else ''}: {pushed.url} at commit {pushed.commit[:8]}")
    return 0


def _card_of(folder: Path, stated: cards.StatedFacts) -> ModelCardData | None:
    """Return the metadata of the card that will be published; None for an adapter without results."""
    found = results.read(folder)
    return cards.metadata(cards.with_stated_facts(found, stated)) if found else None


def _retry_command(folder: Path, options: Options) -> str:
    words = ["python", "train_space.py", "--push-only", folder.name]
    for name, value in {**vars(options.push_options), **vars(options.card_facts)}.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value:
            words += [flag, value]
    if folder.parent != store.FOLDER:
        words += ["--output-dir", str(folder.parent)]
    return shlex.join(words)


def _push(folder: Path, target: hub.Target, stated: cards.StatedFacts) -> hub.Pushed:
    """Push a copy of the folder, and name its Hub repo in the folder's results and card once it is there."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / folder.name
        shutil.copytree(folder, copy)
        found = results.read(copy)
        if found is None:
            return hub.push(copy, target)
        found.hub_id = target.repo_id
        found = cards.with_stated_facts(found, stated)
        cards.write(found, copy)
        found.card_id = hub.git_id(copy / "README.md")
        found.write(copy)
        pushed = hub.push(copy, target, found.tag)
        found.card_id = None
        found.write(folder)
        shutil.copy(copy / "README.md", folder / "README.md")
    return pushed


def _check_tracker(name: str) -> None:
    if name != "none" and importlib.util.find_spec(name) is None:
        raise RecipeError(f"Tracker {name} is not installed: pip install {name}, or leave --report-to out.")


def _print_accuracy(folder: Path) -> None:
    found = results.read(folder)
    evaluation = found.evaluation
    if evaluation.scores:
        print(f"{folder}: {_written_scores(found, evaluation.scores)}")
        constant = evaluation.constant
        print(f"always answering {constant.answer!r}: {_written_scores(found, constant.scores)}")
        print("serve it: python app.py")
        return
    low, high = evaluation.accuracy_ci95
    interval = f"95 % interval {low:.1%} to {high:.1%}"
    print(f"{folder}: accuracy {evaluation.accuracy:.1%} ({interval}), ECE {evaluation.ece:.3f}")
    constant = evaluation.majority
    rarest = stats.recall_of_rarest(evaluation)
    print(
        f"macro F1 {evaluation.f1:.3f}; always answering {constant.label!r}: accuracy {constant.accuracy:.1%}, "
        f"macro F1 {constant.f1:.3f}{f'; {rarest}' if rarest else ''}"
    )
    print("serve it: python app.py")


def _written_scores(found: results.Results, scores: dict[str, results.Score]) -> str:
    """Return the scores of a task in one line, with their 95 % intervals."""
    parts = []
    for metric in tasks.of(found).metrics:
        score = scores[metric.name]
        low, high = map(metric.write, score.ci95)
        parts.append(f"{metric.title} {metric.write(score.value)} ({low} to {high})")
    return ", ".join(parts)


def _print_shortcomings(folder: Path) -> None:
    """Print, as the last line, why the adapter should not be used yet; nothing if there is no such reason."""
    sentences = stats.shortcomings(results.read(folder))
    if sentences:
        print(
            f"warning: {' '.join(sentences)} Check the classes printed above, or add rows or --epochs, or change --lr."
        )
