"""Class weights, and the weights that are kept by a metric of the validation rows."""

import copy
import dataclasses
import json

import numpy
import pytest
import torch
from conftest import SMALL_RUN
from torch.nn import functional
from transformers import TrainerCallback

import train_space
from adapter_arena import results, stats
from adapter_arena.adapters import cards
from adapter_arena.data import load
from adapter_arena.errors import RecipeError, TrainingError
from adapter_arena.results import ClassMetrics
from adapter_arena.train import balance, checkpoints, run, selection, trainer
from adapter_arena.train.recipes import resolve


class Rows:
    def __init__(self, labels):
        self.labels = numpy.array(labels)


class Splits:
    def __init__(self, train_labels, labels):
        self.train = Rows(train_labels)
        self.labels = labels


def weighted(tiny, method="lora", **fields):
    recipe, _ = resolve(method, base_model=tiny.id, class_weights="balanced", **(SMALL_RUN | fields))
    return recipe


def test_balanced_weights_by_hand(tiny):
    splits = Splits([0] * 15 + [1] * 5, ["common", "rare", "absent"])
    weights = balance.class_weights(weighted(tiny), splits)
    assert weights.tolist() == pytest.approx([20 / (2 * 15), 20 / (2 * 5), 1])
    assert weights[splits.train.labels].mean() == pytest.approx(1)
    assert balance.describe(weighted(tiny), splits) == "class weights: 'rare' 2, 'absent' 1, 'common' 0.667"
    assert balance.class_weights(weighted(tiny).__class__(name="none"), splits) is None


@pytest.mark.parametrize("labels", [[0.5, 1.5], [[0, 1], [1, 1]]])
def test_weights_need_one_class_a_text(tiny, labels):
    with pytest.raises(RecipeError, match="leave --class-weights out"):
        balance.class_weights(weighted(tiny), Splits(labels, ["a", "b"]))


def test_weighted_loss_by_hand():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    labels = torch.tensor([0, 1, 0])
    weights = torch.tensor([0.5, 3.0])
    losses = [numpy.log1p(numpy.exp(-2)), numpy.log1p(numpy.exp(-1)), numpy.log(2)]
    expected = (0.5 * losses[0] + 3 * losses[1] + 0.5 * losses[2]) / 3
    plain = functional.cross_entropy(logits, labels)
    assert float(plain + balance.weighting_term(logits, labels, weights)) == pytest.approx(expected)


def test_trainer_weights_the_training_loss_only(tiny, recipe_for, tmp_path):
    """The loss of a batch in training mode and in evaluation mode, with weights 1 and 4."""
    recipe = recipe_for("lora")
    job = run.Job(recipe, load.load_splits(recipe), tmp_path)
    network, _ = run.trainable.build(recipe, 2)
    arguments = run._trainer_arguments(job, network) | {"class_weights": numpy.array([1.0, 4.0])}
    runner = trainer.ArenaTrainer(**arguments)
    batch = runner.data_collator([runner.train_dataset[index] for index in range(8)])
    rare = batch["labels"] == 1
    assert 0 < rare.sum() < 8
    losses = functional.cross_entropy(network(**batch).logits.float(), batch["labels"], reduction="none")
    expected = torch.where(rare, 4 * losses, losses).mean()
    network.train()
    assert runner.compute_loss(network, dict(batch)).item() == pytest.approx(expected.item(), rel=1e-3)
    network.eval()
    assert runner.compute_loss(network, dict(batch)).item() == pytest.approx(losses.mean().item(), rel=1e-3)


# ---------------------------------------------------------------- best evaluation and early stopping


class Recorder(TrainerCallback):
    """Records the trained weights at each evaluation; may interrupt the training after a step."""

    def __init__(self, interrupt_at: int | None = None):
        self.weights = []
        self._interrupt_at = interrupt_at

    def on_evaluate(self, args, state, control, model, **kwargs):
        self.weights.append(trained_weights(model))

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self._interrupt_at:
            raise KeyboardInterrupt


def trained_weights(model) -> dict:
    return {n: copy.deepcopy(p.detach()) for n, p in model.named_parameters() if p.requires_grad}


def are_equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def f1_scores(monkeypatch):
    """The macro F1 of the evaluations to come; the accuracy grows meanwhile."""
    scores = []
    accuracies = iter(numpy.linspace(0.5, 0.9, 20))

    def measure(prediction) -> dict[str, float]:
        return {"accuracy": next(accuracies), "f1": scores.pop(0)}

    monkeypatch.setitem(trainer._VALIDATION_SCORES, "single-label", measure)
    return scores


def test_weights_of_the_best_macro_f1_are_kept_and_training_stops(recipe_for, tmp_path, f1_scores):
    f1_scores += [0.4, 0.8, 0.6, 0.8, 0.9]
    recipe = recipe_for("lora", epochs=5, metric="macro_f1", patience=2)
    recorder = Recorder()
    network, training = run.fit(
        run.Job(recipe, load.load_splits(recipe), tmp_path, callbacks=(recorder,), curve_points=0)
    )
    assert [row.validation_f1 for row in training.epochs] == [0.4, 0.8, 0.6, 0.8]  # the fifth epoch is not trained
    assert training.best_epoch == 2
    assert training.kept_epoch.validation_f1 == 0.8
    kept = trained_weights(network)
    assert [are_equal(kept, weights) for weights in recorder.weights] == [False, True, False, False]


def test_without_a_metric_the_last_weights_are_kept(recipe_for, tmp_path, f1_scores):
    f1_scores += [0.9, 0.1]
    recipe = recipe_for("lora", epochs=2)
    recorder = Recorder()
    network, training = run.fit(
        run.Job(recipe, load.load_splits(recipe), tmp_path, callbacks=(recorder,), curve_points=0)
    )
    assert training.best_epoch is None
    assert are_equal(trained_weights(network), recorder.weights[-1])
    assert not list(tmp_path.glob("best-*"))


def test_resumed_run_keeps_the_best_weights_of_an_earlier_process(recipe_for, tmp_path, f1_scores):
    f1_scores += [0.9, 0.5]
    recipe = recipe_for("lora", n_train=200, epochs=2, metric="macro_f1")  # 25 steps an epoch, then a checkpoint
    splits = load.load_splits(recipe)
    before = Recorder(interrupt_at=30)
    with pytest.raises(KeyboardInterrupt):
        run.fit(run.Job(recipe, splits, tmp_path, callbacks=(before,), curve_points=0))
    network, training = run.fit(run.Job(recipe, splits, tmp_path, resume=True, curve_points=0))
    assert training.best_epoch == 1
    assert are_equal(trained_weights(network), before.weights[0])
    assert [path.name for path in tmp_path.glob("best-*")] == ["best-25.safetensors"]


def test_the_first_best_evaluation_counts():
    log = [{"loss": 1.0}]
    for loss, accuracy in ((0.5, 0.8), (0.3, 0.9), (0.4, 0.9)):
        log.append({"eval_loss": loss, "eval_accuracy": accuracy, "eval_f1": 1 - accuracy})
    assert selection.best_evaluation(log, "loss") == 1
    assert selection.best_evaluation(log, "accuracy") == 1
    assert selection.best_evaluation(log, "macro_f1") == 0
    with pytest.raises(TrainingError, match="not measured for this task: use --metric loss, or leave it out"):
        selection.best_evaluation([{"eval_loss": 0.5}], "macro_f1")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--metric", "macro-f1"], "Unknown metric 'macro-f1': did you mean 'macro_f1'?"),
        (["--patience", "2"], "patience needs the metric that must improve: add --metric"),
        (["--metric", "loss", "--method", "adalora"], "adalora changes the layers until the end: leave --metric out"),
        (["--class-weights", "equal"], "class_weights"),
    ],
)
def test_wrong_flags_end_in_one_line(work, capsys, flags, says):
    assert train_space.main(["--dataset", "sample", *flags]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert says in lines[0]


def test_card_names_the_epoch_that_was_kept(trained):
    found = results.read(trained)
    assert "The weights are those of epoch" not in cards.render(found)
    found.training.best_epoch = 2
    found.recipe["metric"] = "macro_f1"
    assert "The weights are those of epoch 2, the best by macro_f1 on the validation texts." in cards.render(found)


def test_recall_of_the_rarest_class_is_named(trained):
    evaluation = results.read(trained).evaluation
    evaluation.per_class = {
        "common": ClassMetrics(0.9, 0.8, 0.85, 950),
        "rare": ClassMetrics(0.5, 0.24, 0.3, 50),
        "absent": ClassMetrics(0, 0, 0, 0),
    }
    assert stats.recall_of_rarest(evaluation) == "recall of the rarest class 'rare' 24.0% (50 test texts)"
    evaluation.per_class["rare"].n = 950
    assert stats.recall_of_rarest(evaluation) is None


def test_a_run_of_an_earlier_version_is_resumed(recipe_for, work):
    """Its recipe.json lacks the fields that were added since."""
    recipe = recipe_for("lora")
    folder = checkpoints.FOLDER / recipe.name
    folder.mkdir(parents=True)
    saved = dataclasses.asdict(recipe)
    for added in ("class_weights", "metric", "patience"):
        del saved[added]
    (folder / "recipe.json").write_text(json.dumps(saved))
    with checkpoints.run_folder(recipe, resume=True):
        pass
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps(saved))
    changed = dataclasses.replace(recipe, class_weights="balanced")
    with pytest.raises(RecipeError, match="another class_weights"), checkpoints.run_folder(changed, resume=True):
        pass
