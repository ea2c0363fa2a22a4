"""Made data of the tasks other than plain single-label, and adapters that are trained on them; fixtures of conftest.py."""

import json

import numpy
import pandas
import pytest

from adapter_arena.data import sample

WORDS = ("superb", "awful")
"""The words on which the labels depend."""


@pytest.fixture(scope="session")
def task_file(shared):
    """Return a function that writes a file of 500 rows for `multi-label`, `regression` or `pair`.

    The labels follow from the words of the texts; of a pair the second text decides, and the first is short.
    """

    def write(task: str):
        texts = sample.make(500)["text"].tolist()
        generator = numpy.random.default_rng(0)
        given = generator.random((len(texts), 2)) < 0.4
        words = [" ".join(word for word, has in zip(WORDS, row) if has) for row in given]
        marked = [f"{found} {text}" for found, text in zip(words, texts)]
        table = {"text": marked}
        if task == "multi-label":
            table["label"] = [json.dumps([f"is {word}" for word, has in zip(WORDS, row) if has]) for row in given]
        elif task == "regression":
            noise = generator.normal(size=len(texts)).round(2)
            table["label"] = 50 + 10 * given[:, 0] - 20 * given[:, 1] + noise
        else:
            starts = [" ".join(text.split()[:6]) for text in texts]
            table = {"premise": starts, "hypothesis": marked, "label": numpy.where(given[:, 0], "good", "poor")}
        path = shared / f"{task}.csv"
        if not path.is_file():
            pandas.DataFrame(table).to_csv(path, index=False)
        return path

    return write


@pytest.fixture(scope="session")
def task_recipe(task_file, recipe_for):
    """Return a function that makes the recipe of an adapter of the task, with these fields changed."""

    def make(task: str, method: str = "full", **fields):
        settings = {
            "dataset": str(task_file(task)),
            "name": f"tiny-{task}-{method}",
            "n_train": None,
            "n_validation": 60,
            "n_test": 80,
            "epochs": 4,
            "learning_rate": 2e-3,
        }
        return recipe_for(method, **(settings | fields))

    return make


@pytest.fixture(scope="session")
def adapter_for_task(task_recipe, train_once):
    """Return a function that trains an adapter of the task; copy its folder before changing it."""
    return lambda task: train_once(task_recipe(task))
