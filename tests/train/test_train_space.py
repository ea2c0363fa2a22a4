"""The command line, as a user runs it."""

import pytest

import train_space
from adapter_arena import results
from adapter_arena.models import bases
from adapter_arena.recipe import DEFAULT_BASE
from adapter_arena.serve.engine import Engine


def test_sample_end_to_end_on_the_real_base(work, capsys):
    """Train on `sample` from the command line, then serve what it left: it must have learned."""
    quick = ["--epochs", "1", "--batch-size", "4", "--lr", "2e-3", "--train-max-length", "48"]
    rows = ["--n-train", "400", "--n-validation", "40", "--n-test", "100"]
    assert train_space.main(["--dataset", "sample", "--method", "lora", *quick, *rows]) == 0
    said = capsys.readouterr()
    assert "epoch  train loss  validation loss  accuracy" in said.err + said.out
    assert "untrained baseline" in said.out
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
        (["--base-model", "roberta"], "Unknown base model 'roberta': did you mean"),
        (["--dataset", "nothing.csv"], "There is no file nothing.csv"),
        (["--rank", "0"], "rank must be a whole number of at least 1, not 0"),
        (["--rank", "four"], "Argument --rank: invalid int value: 'four'"),
        (["--lr", "nan"], "learning_rate must be a finite number"),
        (["--epoch", "3"], "Unknown flag '--epoch': did you mean '--epochs'"),
        (["--report-to", "nowhere"], "Unknown tracker 'nowhere'"),
        ([], "Hub cannot be reached, so stanfordnlp/imdb cannot be fetched"),
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


def test_help_names_every_recipe_field_that_can_be_set():
    options = {action.dest for action in train_space.parser()._actions}
    from adapter_arena.recipe import FIELDS

    assert set(FIELDS) - options == {"label_names", "warmup", "weight_decay"}
