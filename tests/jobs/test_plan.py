"""The command of a training and the estimate of its time."""

import dataclasses

import pytest

from adapter_arena.errors import RequestError
from adapter_arena.jobs import choices as choosing
from adapter_arena.jobs import command, plan
from adapter_arena.jobs.job import Choices

CHOICES = Choices("a.csv", "mine", "some/base", ("lora",))
RUN = plan.PlannedRun("mine", "lora", 2, 16, 256, 1000, 22_000_000, 500.0)


def test_what_was_chosen_becomes_flags():
    words = command.of_choices(dataclasses.replace(CHOICES, label_column="-stars", rows=500))
    expected = ["--name=mine", "--base-model=some/base", "--dataset=a.csv", "--label-column=-stars", "--n-train=500"]
    assert words == ["--method", "lora", *expected, "--n-test=2000", "--epochs=2"]


def test_the_estimate_grows_with_rows_epochs_length_and_base():
    def seconds(runs=(RUN,), rows=1000, scored_rows=500, characters=450, answer_ms=10.0, base_parameters=22_000_000):
        return plan.seconds(list(runs), rows, scored_rows, characters, answer_ms, base_parameters)

    start = seconds([])
    work = seconds() - start
    assert start > 0
    assert seconds([RUN, RUN]) == pytest.approx(start + 2 * work)
    assert seconds(rows=2000, scored_rows=1000) == pytest.approx(start + 2 * work)
    assert seconds(base_parameters=11_000_000) == pytest.approx(start + 2 * work)
    assert seconds(answer_ms=20.0) == pytest.approx(2 * (start + work))
    assert seconds(characters=100_000) == seconds(characters=200_000)  # texts are truncated
    assert seconds(answer_ms=None) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"methods": ()}, "at least one method"),
        ({"epochs": 0}, "1 to 50 epochs"),
        ({"seeds": 0}, "1 to 5 seeds"),
        ({"rows": 0}, "1 row or more"),
        ({"name": "x" * 61}, "over 60 characters"),
        ({"methods": ("lora", "ia3"), "task": "regression"}, "one class for each row"),
    ],
)
def test_what_cannot_be_trained_is_refused(change, reason):
    with pytest.raises(RequestError, match=reason):
        choosing.check(dataclasses.replace(CHOICES, **change), "some/base")


def test_on_a_space_the_base_model_is_one_of_the_list(monkeypatch):
    choosing.check(dataclasses.replace(CHOICES, base_model="/etc"), "some/base")
    monkeypatch.setenv("SPACE_ID", "someone/space")
    choosing.check(CHOICES, "some/base")
    with pytest.raises(RequestError, match="base model of the list"):
        choosing.check(dataclasses.replace(CHOICES, base_model="/etc"), "some/base")
