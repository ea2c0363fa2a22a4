"""Fine-tune an adapter and leave it in adapters/, measured as it will be served.

python train_space.py --method lora --dataset sample
python train_space.py --recipe minilm-imdb-lora --dataset path/to/imdb
python train_space.py --method lora --dataset reviews.csv --text-column body --label-column stars
"""

import argparse
import atexit
import dataclasses
import importlib.util
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from adapter_arena import runtime
from adapter_arena.errors import ArenaError, RecipeError, Terminated, unknown
from adapter_arena.recipe import FIELDS

TRACKERS = ("none", "tensorboard", "trackio", "wandb", "codecarbon")
_DASHBOARDS = {"trackio": "trackio show --project adapter-arena", "tensorboard": "tensorboard --logdir runs/logs"}


class Parser(argparse.ArgumentParser):
    """argparse, with one line for a wrong flag or value and underscores allowed in flags."""

    def parse_args(self, args=None, namespace=None):
        args = [_dashed(arg) for arg in (sys.argv[1:] if args is None else args)]
        known, strange = self.parse_known_args(args, namespace)
        if strange:
            flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
            raise RecipeError(unknown("flag", strange[0], flags))
        return known

    def error(self, message):
        raise RecipeError(f"{message[0].upper()}{message[1:]}; see --help.")


def _dashed(arg: str) -> str:
    flag, equals, value = arg.partition("=")
    return flag.replace("_", "-") + equals + value if flag.startswith("--") else arg


def count(text: str) -> int | str:
    """A number of rows, or `all`."""
    return text if text == "all" else int(text)


def parser() -> Parser:
    """The command line; what is not given is left to the recipe, the method and the defaults."""
    p = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    p.add_argument("--method", help="lora (default), full, qlora, ia3, dora or another that README.md lists")
    p.add_argument(
        "--recipe", help="a name from --list-recipes, a YAML file, a results.json or a Hub adapter to repeat"
    )
    p.add_argument("--base-model", help="Hub id of a supported base, or a local folder")
    p.add_argument("--dataset", help="Hub id, .csv/.tsv/.jsonl/.parquet file, folder of splits, or `sample`")
    p.add_argument("--text-column", help="column with the text (default: guessed)")
    p.add_argument("--label-column", help="column with the label (default: guessed)")
    p.add_argument("--n-train", type=count, help="training rows, balanced over classes, or all (default: all)")
    p.add_argument("--n-validation", type=count, help="most validation rows (default 2000)")
    p.add_argument("--n-test", type=count, help="test rows, balanced over classes (default: all)")
    p.add_argument(
        "--streaming", action="store_true", default=None, help="read no more of the dataset than the rows asked for"
    )
    p.add_argument("--epochs", type=int)
    p.add_argument("--batch-size", type=int)
    p.add_argument("--lr", "--learning-rate", type=float, dest="learning_rate", help="peak learning rate")
    p.add_argument("--optimizer", help="adamw (default) or paged_adamw_8bit (CUDA)")
    p.add_argument(
        "--precision", help="auto (default: the faster of bf16 and fp32 on this machine), bf16, fp32, or fp16 (CUDA)"
    )
    p.add_argument("--attention", help="eager (default), sdpa or flash_attn (CUDA)")
    p.add_argument("--lr-ratio", type=float, help="LoRA+: B's learning rate over A's")
    p.add_argument("--max-length", type=int, help="tokens a text may have")
    p.add_argument("--train-max-length", type=int, help="tokens of a text while training (default: --max-length)")
    p.add_argument("--rank", type=int)
    p.add_argument("--alpha", type=int)
    p.add_argument("--dropout", type=float, help="dropout of the adapter")
    p.add_argument("--target-modules", help="attention, all-linear, ia3, norms or module names separated by commas")
    p.add_argument("--seed", type=int, help="of the new weights and the order of rows (default 42)")
    p.add_argument(
        "--data-seed", type=int, help="of the rows that are kept and the splits that are carved (default 42)"
    )
    p.add_argument("--name", help="name of the adapter folder")
    p.add_argument(
        "--output-dir", type=Path, default=Path("adapters"), help="where the adapter folder goes (default adapters)"
    )
    p.add_argument("--push", action="store_true", help="publish the adapter on the Hub when it is trained")
    p.add_argument("--push-only", metavar="NAME", help="publish an adapter that is trained already, and leave")
    p.add_argument("--namespace", help="Hub user or organisation to publish under (default: the token's)")
    p.add_argument("--private", action="store_true", help="make the Hub repo private")
    p.add_argument("--on-jobs", metavar="FLAVOR", help="train on Hugging Face Jobs (t4-small, …) and push")
    p.add_argument("--resume", action="store_true", help="continue an interrupted run")
    p.add_argument("--report-to", default="none", help=f"{', '.join(TRACKERS[:-1])} or {TRACKERS[-1]}")
    p.add_argument(
        "--share-texts", action="store_true", help="let excerpts of a local dataset's texts into results and card"
    )
    p.add_argument("--evaluate", metavar="NAME", help="measure an adapter of --output-dir again, without training")
    p.add_argument("--export", metavar="NAME", help="write an adapter of --output-dir as a plain model to exports/NAME")
    p.add_argument("--format", default="merged", help="of --export: merged (a transformers folder, default) or onnx")
    p.add_argument(
        "--compare",
        metavar="METHODS",
        help="train several methods, recipes or recipe files (lora,ia3,full) on the same data",
    )
    p.add_argument(
        "--seeds", default="3", help="seeds of each method in a comparison (default 3), or one number for each"
    )
    p.add_argument(
        "--sweep",
        nargs="+",
        metavar="FIELD=VALUES",
        help="choose hyper-parameters on validation: learning_rate=1e-3,5e-4 batch_size=4,8 or learning_rate=1e-5..1e-2",
    )
    p.add_argument("--trials", type=int, help="most trials of a sweep (default: every combination of the values)")
    p.add_argument("--storage", help="file or database URL that the processes of a sweep share")
    p.add_argument("--list-recipes", action="store_true", help="print the recipes and leave")
    p.add_argument(
        "--dry-run", action="store_true", help="print the resolved recipe and its parameter counts and leave"
    )
    return p


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    runtime.configure(parallel_tokenizers=False)  # before torch is imported
    argv = sys.argv[1:] if argv is None else argv
    if int(os.environ.get("RANK", 0)):  # of several processes the first alone speaks
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the rest of this process
    try:
        options = parser().parse_args(argv)
        if options.list_recipes:
            return list_recipes()
        if options.evaluate:
            return evaluate(options)
        if options.export:
            return export(options)
        if options.push_only:
            return publish(options.output_dir / options.push_only, options)
        if options.on_jobs:
            return train_elsewhere(options, argv)
        if options.compare:
            return compare(options)
        if options.sweep:
            return sweep(options)
        return train(options)
    except ArenaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        again = "again" if options.compare or options.sweep else "with --resume"
        print(f"\ninterrupted: the same command {again} continues from the last checkpoint", file=sys.stderr)
        return 143 if isinstance(error, Terminated) else 130


def check_tracker(name: str) -> None:
    """RecipeError when metrics cannot be reported to `name`."""
    if name not in TRACKERS:
        raise RecipeError(unknown("tracker", name, TRACKERS))
    if name != "none" and importlib.util.find_spec(name) is None:
        raise RecipeError(f"Tracker {name} is not installed: pip install {name}, or leave --report-to out.")


def list_recipes() -> int:
    """Print each recipe's name and description and, for a known set-up, what it reproduces and what that reported."""
    from adapter_arena.train import recipes

    width = max(map(len, recipes.names()))
    for name in recipes.names():
        about = recipes.describe(name)
        print(f"{name:{width}} {about.pop('description')}")
        for key, text in about.items():
            print(f"{'':{width}} {key}: {text}")
    return 0


def resolve(options: argparse.Namespace):
    """The recipe that the options ask for, and where each of its values came from."""
    from adapter_arena.train import recipes

    overrides = {name: getattr(options, name) for name in FIELDS if name in options and name != "method"}
    return recipes.resolve(options.method, recipe_file(options.recipe), **overrides)


def recipe_file(source: str | None) -> str | None:
    """What --recipe names as `recipes.resolve` takes it: the recipe of a Hub adapter is fetched."""
    from adapter_arena import hub

    is_on_hub = source and re.fullmatch(r"[\w.-]+/[\w.-]+(@\w+)?", source) and not Path(source).suffix
    return str(hub.recipe_of(source)) if is_on_hub else source


def check_flags(options: argparse.Namespace, command: str, *without: str) -> None:
    """RecipeError for a flag that has no effect beside `command`."""
    for flag in without:
        if getattr(options, flag) not in (None, False, "none"):
            raise RecipeError(f"--{flag.replace('_', '-')} has no effect with {command}: leave it out.")


def evaluate(options: argparse.Namespace) -> int:
    """Measure an adapter again, on the data its results name or, for local ones, on those of --dataset."""
    from adapter_arena.models import bases
    from adapter_arena.train import recipes, training

    bases.quiet_libraries()
    name, where = options.evaluate, {"dataset": options.dataset, "base_model": options.base_model}
    settings = {field for field in FIELDS if field in options} | {"recipe"}
    check_flags(options, "--evaluate, which keeps the recipe", *sorted(settings - set(where)))
    if Path(name).name != name or not (options.output_dir / name / "results.json").is_file():
        raise RecipeError(
            f"There is no {options.output_dir / name / 'results.json'}: name an adapter of {options.output_dir}."
        )
    recipe, _ = recipes.resolve(recipe=str(options.output_dir / name / "results.json"), **where)
    say(training.measure(name, recipe, options.output_dir, options.share_texts))
    return 0


def export(options: argparse.Namespace) -> int:
    """Write an adapter as a plain model, compare its answers with the served ones, and say what can serve it."""
    from adapter_arena.adapters import exporting
    from adapter_arena.data import sample
    from adapter_arena.models import bases
    from adapter_arena.serve import parity

    bases.quiet_libraries()
    adapter, base = exporting.read(options.output_dir / options.export, options.base_model)
    folder = exporting.write(adapter, base, Path("exports") / options.export, options.format)
    texts = sample.make(64)["text"].tolist()
    change = parity.largest_difference(folder, adapter, base, texts)
    print(f"{folder}: probabilities differ by at most {change:.4f} from the served adapter on {len(texts)} made texts")
    for engine, line in exporting.ENGINES.items():
        print(f"{engine}: {line.format(folder=folder)}")
    return 0


def train(options: argparse.Namespace) -> int:
    """Resolve the recipe, say which setting came from where, and run it or (dry) count its parameters."""
    from adapter_arena import hub, machine
    from adapter_arena.models import bases
    from adapter_arena.train import training

    bases.quiet_libraries()
    check_tracker(options.report_to)
    recipe, origin = resolve(options)
    for name, value in vars(recipe).items():
        print(f"{name:16} {value!s:40} {origin.get(name, 'default')}")
    if options.dry_run:
        trainable, total = training.count_parameters(recipe)
        print(f"trainable parameters {trainable:,} of {total:,} ({100 * trainable / total:.2f} %)")
        return 0
    if options.push and machine.is_first():  # asked before the training, not after it
        options.namespace = hub.check_can_push(options.namespace)
    folder = training.run(recipe, options.output_dir, options.resume, options.report_to, options.share_texts)
    if not machine.is_first():
        return 0
    say(folder)
    if options.report_to in _DASHBOARDS:
        print(f"curves: {_DASHBOARDS[options.report_to]}")
    return publish(folder, options) if options.push else 0


def say(folder: Path) -> None:
    """Print what was measured, from the adapter's results."""
    from adapter_arena import results

    evaluation = results.read(folder).evaluation
    low, high = evaluation.accuracy_ci95
    interval = f"95 % interval {low:.1%} to {high:.1%}"
    print(f"{folder}: accuracy {evaluation.accuracy:.1%} ({interval}), ECE {evaluation.ece:.3f}")
    print("serve it: python app.py")


def compare(options: argparse.Namespace) -> int:
    """Train each method or recipe with several seeds on the same data, and leave a report."""
    from adapter_arena.models import bases, methods
    from adapter_arena.train import compare as comparing
    from adapter_arena.train import recipes

    bases.quiet_libraries()
    check_flags(options, "--compare", "method", "recipe", "sweep", "report_to", "push", "namespace", "private")
    wanted = list(dict.fromkeys(name.strip() for name in options.compare.split(",") if name.strip()))
    known = [*methods.METHODS, *recipes.names()]
    for name in wanted:
        if name in methods.REFUSED:
            methods.find(name)  # says why
        if name not in known and "/" not in name and Path(name).suffix not in recipes.SUFFIXES:
            raise RecipeError(unknown("method or recipe", name, known))
    if len(wanted) < 2:
        raise RecipeError("--compare needs at least two different methods: lora,ia3 for example.")
    numbers = options.seeds.split(",")
    if len(numbers) not in (1, len(wanted)) or not all(n.strip().isdecimal() and int(n) for n in numbers):
        raise RecipeError(
            f"--seeds {options.seeds} is neither one number from 1 up nor one for each of the {len(wanted)} methods: "
            f"3 or {','.join('3' for _ in wanted)} for example."
        )
    first, named = 42 if options.seed is None else options.seed, options.name
    if named is not None:
        recipes.check_name(named)
    plan: dict[str, list] = {}
    for item, count in zip(wanted, map(int, numbers * len(wanted))):
        options.method, options.recipe = (item, None) if item in methods.METHODS else (None, item)
        plan[item] = []
        for seed in range(first, first + count):
            options.seed, options.name = seed, None
            recipe, _ = resolve(options)
            plan[item].append(dataclasses.replace(recipe, name=f"{recipe.name}-s{seed}"))
    comparing.check(plan)
    name = named or plan[wanted[0]][0].name.rsplit("-", 2)[0]
    for seeds in plan.values():
        for recipe in seeds:
            print(f"{recipe.name:32} {recipe.method:8} lr {recipe.learning_rate:g} seed {recipe.seed}")
    if options.dry_run:
        return 0
    folder = comparing.run(name, plan, Path("comparisons") / name, options.share_texts, options.output_dir)
    print(f"report: {folder / 'report.md'}")
    return 0


def sweep(options: argparse.Namespace) -> int:
    """Try the values on the validation split and leave the best recipe as a file."""
    from adapter_arena import machine
    from adapter_arena.models import bases
    from adapter_arena.train import sweeping

    bases.quiet_libraries()
    check_flags(options, "--sweep", "report_to", "push", "namespace", "private", "resume")
    options.recipe = recipe_file(options.recipe)
    if machine.processes() > 1:
        raise RecipeError("The processes of a sweep are started apart and share its --storage: leave the launcher out.")
    base, _ = resolve(options)
    fields = {name: getattr(options, name) for name in FIELDS if name in options and name not in ("name", "method")}
    name = f"{base.name}-sweep" if options.name is None else options.name
    plan = sweeping.plan(name, fields, options.method, options.recipe, options.sweep, options.trials)
    if options.dry_run:
        print(f"{plan.name}: {', '.join(f'{field} in {among}' for field, among in plan.space.items())}")
        return 0
    path = sweeping.run(plan, options.storage)
    print(f"best recipe: {path}\ntrain it: python train_space.py --recipe {path}")
    return 0


def publish(folder: Path, options: argparse.Namespace) -> int:
    """Push an adapter folder; where that fails the adapter stays and the command that pushes it later is printed."""
    from adapter_arena import hub, results
    from adapter_arena.adapters import cards, store

    name = folder.name
    if not folder.is_dir():
        raise RecipeError(unknown("adapter", name, [path.name for path in store.folders(folder.parent)]))
    try:
        namespace = hub.check_can_push(options.namespace)
        with tempfile.TemporaryDirectory() as place:
            copy = Path(place) / name
            shutil.copytree(folder, copy)
            if found := results.read(copy):
                found.hub_id = f"{namespace}/{name}"
                found.write(copy)
                cards.write(found, copy)
            pushed = hub.push(copy, f"{namespace}/{name}", options.private, found and found.tag)
            for file in (results.FILE, "README.md"):  # only now is it true that the Hub has it
                if found:
                    shutil.copy(copy / file, folder / file)
    except ArenaError as error:
        later = ["python", "train_space.py", "--push-only", name]
        later += ["--namespace", options.namespace] * bool(options.namespace) + ["--private"] * options.private
        later += ["--output-dir", str(folder.parent)] * (folder.parent != store.FOLDER)
        print(f"error: {error}\nThe adapter is whole in {folder}; push it later: {shlex.join(later)}", file=sys.stderr)
        return 1
    print(f"published: {pushed.url} at commit {pushed.commit[:8]}")
    return 0


def train_elsewhere(options: argparse.Namespace, argv: list[str]) -> int:
    """Submit the same command to Hugging Face Jobs and follow it to the pushed repo, or (dry) print what would be."""
    from adapter_arena import hub
    from adapter_arena.hub import deploy

    recipe, _ = resolve(options)
    namespace = (options.namespace or "<you>") if options.dry_run else hub.check_can_push(options.namespace)
    job = deploy.job(options.on_jobs, namespace, argv, options.dataset)
    if options.dry_run:
        print(job.describe())
        return 0
    deploy.submit(job)
    print(f"published: {hub.api().endpoint}/{namespace}/{recipe.name}")
    return 0


def _terminate(*_) -> None:
    raise Terminated


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    status = main()
    # Python's teardown now and then ended in an abort ("terminate called without an active exception"), most likely
    # from a thread stopped inside torch's C++.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
