"""Scoring a dataset with one adapter on a local Ray cluster of two workers."""

import threading
from contextlib import suppress

import pandas
import psutil
import pytest

from adapter_arena.data import sample
from adapter_arena.serve import scoring
from adapter_arena.serve.engine import Engine

ROWS = 12_000


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    yield ray
    ray.shutdown()


@pytest.fixture
def files(tmp_path):
    """Four files of numbered rows; every hundredth row has no text."""
    texts = sample.make(1000)["text"].tolist() * (ROWS // 1000)
    frame = pandas.DataFrame({"number": range(ROWS), "text": texts})
    frame.loc[frame["number"] % 100 == 7, "text"] = ""
    paths = [tmp_path / f"part-{i}.parquet" for i in range(4)]
    for i, path in enumerate(paths):
        frame.iloc[i * ROWS // 4 : (i + 1) * ROWS // 4].to_parquet(path, index=False)
    return paths


def kill_a_worker(killed: list[int], done: threading.Event) -> None:
    """Kill the first worker that has computed for some seconds."""
    while not killed and not done.wait(0.05):
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "Scorer" in " ".join(process.cmdline()) and process.cpu_times().user > 6:
                    process.kill()
                    killed.append(process.pid)
                    return


@pytest.mark.slow
def test_all_rows_are_scored_in_order_although_a_worker_is_killed(cluster, files, trained, tiny, tmp_path):
    killed: list[int] = []
    done = threading.Event()
    killer = threading.Thread(target=kill_a_worker, args=(killed, done))
    killer.start()
    try:
        assert scoring.run(files, trained, tmp_path / "scored", workers=2, base_model=tiny.id) == ROWS
    finally:
        done.set()
        killer.join()
    assert killed
    written = sorted((tmp_path / "scored").glob("*.parquet"))
    found = pandas.concat([pandas.read_parquet(path) for path in written], ignore_index=True)
    assert found["number"].tolist() == list(range(ROWS))
    empty = found["number"] % 100 == 7
    assert found.loc[empty, "error"].str.contains("The text is empty").all()
    assert found.loc[~empty, "error"].isna().all()
    engine = Engine(tiny)
    engine.add_folder(trained)
    some = found[~empty].iloc[::997]
    for answer, row in zip(engine.predict(some["text"].tolist()), some.itertuples()):
        assert abs(answer.confidence - row.confidence) < 0.02
    engine.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.parquet", "--output", "new"], "There is no file none.parquet"),
        (["a.csv", "b.jsonl", "--output", "new"], "give only .parquet, only .csv or only .jsonl"),
        (["a.csv", "--output", "new", "--text-column", "txt"], "did you mean 'text'"),
        (["a.csv", "--output", "full"], "full contains files already"),
    ],
)
def test_problems_that_would_appear_hours_later_are_reported_first(work, tiny, trained, capsys, arguments, message):
    for name in ("a.csv", "b.jsonl"):
        (work / name).write_text("text,label\ngood,1\n")
    (work / "full").mkdir()
    (work / "full" / "x").touch()
    assert scoring.main([*arguments, "--adapter", str(trained), "--base-model", tiny.id]) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed.strip().splitlines()) == 1
