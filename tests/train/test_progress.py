"""What a training writes to progress.jsonl while it runs."""

import math

from adapter_arena import progress, results
from adapter_arena.train import run


def test_a_training_writes_its_phases_steps_losses_and_scores(work, recipe_for, no_pictures, monkeypatch):
    lines = []
    append = progress.append

    def remember(folder, **values) -> None:
        append(folder, **values)
        lines[:] = progress.read(folder)

    monkeypatch.setattr(progress, "append", remember)
    recipe = recipe_for(n_train=32)
    found = results.read(run.train(recipe))
    assert not (work / "runs" / recipe.name).exists()
    phases = [line["phase"] for line in lines if "phase" in line]
    assert phases == ["reading the rows", "measuring the untrained base", "training", "measuring the adapter"]
    steps = [line["step"] for line in lines if "step" in line]
    assert steps == sorted(steps)
    assert {line["steps"] for line in lines if "step" in line} == {4}
    losses = [[line["step"], line["loss"]] for line in lines if "loss" in line]
    assert losses == found.training.losses
    assert [step for step, _ in losses] == [1, 2, 3, 4]
    curve = [
        [line["step"], line["validation_loss"], line["validation_score"]] for line in lines if "validation_loss" in line
    ]
    assert curve == found.training.validation_curve
    assert math.isfinite(found.training.epochs[0].train_loss)
