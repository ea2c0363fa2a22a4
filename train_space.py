"""Fine-tune an adapter and leave it in adapters/, measured as it will be served.

python train_space.py --method lora --dataset sample
python train_space.py --recipe minilm-imdb-lora --dataset path/to/imdb
python train_space.py --method lora --dataset reviews.csv --text-column body --label-column stars
"""

import argparse
import importlib.util
import os
import sys
from pathlib import Path

from peft_arena.errors import ArenaError, RecipeError, unknown

TRACKERS = ("none", "tensorboard", "trackio", "wandb")


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


def parser() -> Parser:
    """The command line; what is not given is left to the recipe, the method and the defaults."""
    p = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    p.add_argument("--method", help="full, lora, qlora, ia3, dora or rslora (default lora)")
    p.add_argument("--recipe", help="a name from --list-recipes, a YAML file or a results.json to repeat")
    p.add_argument("--base-model", help="Hub id of a supported base, or a local folder")
    p.add_argument("--dataset", help="Hub id, .csv/.tsv/.jsonl/.parquet file, folder of splits, or `sample`")
    p.add_argument("--text-column", help="column with the text (default: guessed)")
    p.add_argument("--label-column", help="column with the label (default: guessed)")
    p.add_argument("--n-train", type=int, help="training rows, balanced over classes (default: all)")
    p.add_argument("--n-validation", type=int, help="most validation rows (default 2000)")
    p.add_argument("--n-test", type=int, help="test rows, balanced over classes (default: all)")
    p.add_argument("--epochs", type=int)
    p.add_argument("--batch-size", type=int)
    p.add_argument("--lr", "--learning-rate", type=float, dest="learning_rate", help="peak learning rate")
    p.add_argument("--max-length", type=int, help="tokens a text may have")
    p.add_argument("--train-max-length", type=int, help="tokens of a text while training (default: --max-length)")
    p.add_argument("--rank", type=int)
    p.add_argument("--alpha", type=int)
    p.add_argument("--dropout", type=float, help="dropout of the adapter")
    p.add_argument("--target-modules", help="attention, all-linear, ia3 or module names separated by commas")
    p.add_argument("--seed", type=int)
    p.add_argument("--name", help="name of the adapter folder")
    p.add_argument(
        "--output-dir", type=Path, default=Path("adapters"), help="where the adapter folder goes (default adapters)"
    )
    p.add_argument("--resume", action="store_true", help="continue an interrupted run")
    p.add_argument("--report-to", default="none", help="none, tensorboard, trackio or wandb")
    p.add_argument("--list-recipes", action="store_true", help="print the recipes and leave")
    p.add_argument(
        "--dry-run", action="store_true", help="print the resolved recipe and its parameter counts and leave"
    )
    return p


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    # Before torch is imported: quieter libraries, and no warning about forking tokenizers.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        options = vars(parser().parse_args(argv))
        listing, dry, resume = (options.pop(name) for name in ("list_recipes", "dry_run", "resume"))
        output_dir, report_to = options.pop("output_dir"), options.pop("report_to")
        if listing:
            return list_recipes()
        return train(options, output_dir, resume, report_to, dry)
    except ArenaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: the same command with --resume continues from the last checkpoint", file=sys.stderr)
        return 130


def check_tracker(name: str) -> None:
    """RecipeError when metrics cannot be reported to `name`."""
    if name not in TRACKERS:
        raise RecipeError(unknown("tracker", name, TRACKERS))
    if name != "none" and importlib.util.find_spec(name) is None:
        raise RecipeError(f"Tracker {name} is not installed: pip install {name}, or leave --report-to out.")


def list_recipes() -> int:
    """Print each recipe's name and description."""
    from peft_arena import recipes

    for name in recipes.names():
        print(f"{name:22} {recipes.describe(name)}")
    return 0


def train(options: dict, output_dir: Path, resume: bool, report_to: str, dry: bool) -> int:
    """Resolve the recipe, say which setting came from where, and run it or (dry) count its parameters."""
    from peft_arena import bases, recipes, training

    bases.quiet_libraries()
    check_tracker(report_to)
    recipe, origin = recipes.resolve(options.pop("method"), options.pop("recipe"), **options)
    for name, value in vars(recipe).items():
        print(f"{name:16} {value!s:40} {origin.get(name, 'default')}")
    if dry:
        trainable, total = training.count_parameters(recipe)
        print(f"trainable parameters {trainable:,} of {total:,} ({100 * trainable / total:.2f} %)")
        return 0
    folder = training.run(recipe, output_dir, resume, report_to)
    from peft_arena import results

    evaluation = results.read(folder).evaluation
    low, high = evaluation.accuracy_ci95
    interval = f"95 % interval {low:.1%} to {high:.1%}"
    print(f"{folder}: accuracy {evaluation.accuracy:.1%} ({interval}), ECE {evaluation.ece:.3f}")
    print("serve it: python app.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
