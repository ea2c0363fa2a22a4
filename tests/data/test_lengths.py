"""A split whose texts are of another length than those of train is named."""

import pandas
import pytest

from adapter_arena.data import load
from adapter_arena.train import recipes


@pytest.mark.parametrize(("words", "note"), [(8, ""), (5, ""), (3, "second texts of test: ")])
def test_texts_of_another_length_than_in_train_are_named(tmp_path, words, note):
    folder = tmp_path / "pairs"
    folder.mkdir()
    for split, length in (("train", 8), ("test", words)):
        content = [(f"{split} {row}", f"{row:03} " + "word " * length, row % 2) for row in range(100)]
        pandas.DataFrame(content, columns=["premise", "hypothesis", "label"]).to_csv(
            folder / f"{split}.csv", index=False
        )
    splits = load.load_splits(recipes.resolve("lora", dataset=str(folder))[0])
    found = "; ".join(line.text for line in splits.decisions if line.heading == "lengths")
    assert found.startswith(note)
    assert bool(found) is bool(note)
