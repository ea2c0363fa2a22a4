"""The command line, as a user runs it."""

import shutil
import sys

import pytest
from conftest import ROOT, run_process

import train_space
from adapter_arena import cli, results
from adapter_arena.models import bases
from adapter_arena.recipe import DEFAULT_BASE, DESCRIPTIONS
from adapter_arena.serve.engine import Engine
from adapter_arena.train import run


def test_sample_end_to_end_on_the_real_base(work, capsys):
    """Train on `sample` from the command line, then serve what it left: it must have learned."""
    quick = ["--epochs", "1", "--batch-size", "4", "--lr", "2e-3", "--train-max-length", "48"]
    rows = ["--n-train", "400", "--n-validation", "40", "--n-test", "100"]
    assert train_space.main(["--dataset", "sample", "--method", "lora", *quick, *rows]) == 0
    printed = capsys.readouterr()
    assert "epoch  train loss  validation loss  accuracy" in printed.err + printed.out
    assert "untrained baseline" in printed.out
    folder = work / "adapters" / "minilm-sample-lora"
    found = results.read(folder)
    assert found.evaluation.accuracy > 0.85 > found.evaluation.baseline.accuracy
    engine = Engine(bases.find(DEFAULT_BASE))
    engine.add_folder(folder)
    good, bad = engine.predict(["The acting is superb. Highly recommended.", "The script is dreadful. Avoid it."])
    assert (good.label, bad.label) == ("positive", "negative")
    engine.close()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--method", "lroa"], "Unknown method 'lroa': did you mean 'lora'?"),
        (["--recipe", "minilm-imdb-lor"], "did you mean 'minilm-imdb-lora'"),
        (
            ["--base-model", "roberta"],
            "Base model roberta is not on this machine and the Hub cannot be reached; did you mean",
        ),
        (["--dataset", "nothing.csv"], "There is no file nothing.csv"),
        (["--rank", "0"], "rank should be greater than or equal to 1, not 0: correct it on the command line."),
        (["--rank", "four"], "Invalid value for '--rank': 'four' is not a valid integer. See --help."),
        (["--lr", "nan"], "learning_rate should be less than or equal to 1, not nan"),
        (["--epoch", "3"], "No such option '--epoch'. (Did you mean one of: '--epochs'"),
        (["--on-jobs", "t4-small"], "No such option '--on-jobs'"),
        (["--training-arguments", "fp16"], "'fp16' is not key=value"),
        (["sample"], "Unexpected argument 'sample'"),
        (["--report-to", "nowhere"], "Invalid value for '--report-to': 'nowhere' is not one of 'none', 'tensorboard'"),
        ([], "Hub cannot be reached to fetch stanfordnlp/imdb"),
    ],
)
def test_what_a_user_gets_wrong_ends_in_one_line(args, says, capsys, work):
    assert train_space.main(args) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert says in lines[0]
    assert not list(work.glob("**/checkpoint-*"))


def test_dry_run_needs_no_network_data_or_weights(work, capsys):
    """Nothing listens where the tests have the Hub, and roberta-base is nowhere on this machine."""
    assert train_space.main(["--method", "lora", "--base_model", "FacebookAI/roberta-base", "--dry-run"]) == 0
    assert "trainable parameters 1,181,954 of 125,236,994" in capsys.readouterr().out
    assert not list(work.iterdir())


def test_list_recipes_names_each(capsys):
    assert train_space.main(["--list-recipes"]) == 0
    assert "minilm-imdb-lora" in capsys.readouterr().out


def test_every_recipe_field_has_a_flag_whose_help_is_its_docstring():
    options = {parameter.name: parameter for parameter in cli.command.params}
    for name, description in DESCRIPTIONS.items():
        assert options[name].help.startswith(description.removesuffix(".").replace("`", ""))


def test_help_does_not_import_torch():
    code = (
        "import sys, train_space\n"
        "assert train_space.main(['--help']) == 0\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    help_text = run_process([sys.executable, "-c", code], check=True, cwd=ROOT).stdout
    assert "--learning-rate" in help_text


def dry_run(capsys, *flags: str) -> dict[str, str]:
    """Return the values that a dry run prints, by field."""
    assert train_space.main([*flags, "--dry-run"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    return {name: value.removesuffix("command line").strip() for name, value in lines}


def test_older_spellings_of_flags_still_work(capsys):
    values = dry_run(capsys, "--method", "lora", "--lr", "5e-4", "--n_train=all", "--batch_size", "4", "--streaming")
    assert values["learning_rate"] == "0.0005"
    assert values["batch_size"] == "4"
    assert values["streaming"] == "True"
    values = dry_run(capsys, "--method", "lora", "--optimizer", "paged_adamw_8bit", "--precision", "fp16")
    assert values["training_arguments"] == "{'fp16': True, 'optim': 'paged_adamw_8bit'}"


def test_training_arguments_are_added_to_those_of_the_recipe(capsys):
    recipe = ["--recipe", "minilm-3k-qlora", "--training-arguments"]
    values = dry_run(capsys, *recipe, "max_grad_norm=0.5", "--training-arguments", "fp16=True")
    assert values["training_arguments"] == "{'optim': 'paged_adamw_8bit', 'max_grad_norm': 0.5, 'fp16': True}"


def test_a_sweep_takes_several_values_after_one_flag(capsys):
    assert train_space.main(["--dataset", "sample", "--sweep", "epochs=1,2", "batch_size=4,8", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "epochs in " in out
    assert "batch_size in " in out


def test_a_dry_run_shows_the_local_data(work, capsys):
    """Nothing listens where the tests have the Hub, so the data of a Hub id are not read."""
    rows = [f"film {i},{('bad', 'Good', 'bad', 'good ', '-')[i % 5]}\n" for i in range(100)]
    (work / "films.csv").write_text("text,label\n" + "".join(rows))
    for command in ([], ["--compare", "lora,ia3"], ["--sweep", "epochs=1,2"]):
        assert train_space.main(["--dataset", "films.csv", *command, "--dry-run"]) == 0
        printed = capsys.readouterr().out
        assert "data         films.csv: train 72, validation 8, test 20 rows of 3 classes" in printed
        assert "joined       'Good', 'good ' as 'Good'" in printed
        assert ("trainable parameters" in printed) == (not command)
    assert train_space.main(["--dry-run"]) == 0
    assert "stanfordnlp/imdb of the Hub is not read by a dry run" in capsys.readouterr().out
    assert {path.name for path in work.iterdir()} == {"films.csv"}


def test_a_useless_adapter_is_named_in_the_last_line(work, capsys, monkeypatch, trained):
    """As it ends after a training, and again after --evaluate."""
    folder = work / "adapters" / trained.name
    shutil.copytree(trained, folder)
    found = results.read(folder)
    found.evaluation.confusion_matrix = [[20, 0], [20, 0]]
    found.evaluation.accuracy = 0.5
    found.evaluation.accuracy_ci95 = [0.352, 0.648]
    found.evaluation.majority = results.Majority(found.labels[1], 0.5, 1 / 3)
    found.write(folder)
    monkeypatch.setattr(run, "train", lambda *args: folder)
    monkeypatch.setattr(run, "measure_again", lambda *args: folder)
    for command in (["--dataset", "sample"], ["--evaluate", folder.name]):
        assert train_space.main(command) == 0
        lines = capsys.readouterr().out.strip().splitlines()
        assert lines[-1].startswith(
            f"warning: This adapter never predicts {found.labels[1]!r} (20 test texts). Its accuracy of 50.0%"
        )
        assert "cannot be told apart from the 50.0% of always answering" in lines[-1]
        assert f"always answering {found.labels[1]!r}: accuracy 50.0%, macro F1 0.333" in lines[-3]
