"""A data set through one adapter on a local Ray cluster of two workers."""

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
    """Made rows in four files, numbered; every hundredth has no text."""
    texts = (sample.make(1000)["text"].tolist() * (ROWS // 1000 + 1))[:ROWS]
    frame = pandas.DataFrame({"number": range(ROWS), "text": texts})
    frame.loc[frame["number"] % 100 == 7, "text"] = ""
    paths = [tmp_path / f"part-{i}.parquet" for i in range(4)]
    for i, path in enumerate(paths):
        frame.iloc[i * ROWS // 4 : (i + 1) * ROWS // 4].to_parquet(path, index=False)
    return paths


def kill_a_worker(killed: list[int], done: threading.Event) -> None:
    """kill -9 to the first worker that has computed for some seconds."""
    while not killed and not done.wait(0.05):
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "Scorer" in " ".join(process.cmdline()) and process.cpu_times().user > 6:
                    process.kill()
                    killed.append(process.pid)
                    return


@pytest.mark.slow
def test_rows_come_back_whole_and_in_order_though_a_worker_is_killed(cluster, files, trained, tiny, tmp_path):
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


@pytest.mark.parametrize(("change", "says"), [
    ({"files": ["none.parquet"]}, "There is no file none.parquet"),
    ({"files": ["a.csv", "b.jsonl"]}, "take one of .parquet, .csv and .jsonl"),
    ({"text_column": "txt"}, "did you mean 'text'"),
    ({"output": "full"}, "full holds files already"),
])  # fmt: skip
def test_what_would_fail_hours_later_is_refused_at_once(work, tiny, trained, capsys, change, says):
    for name in ("a.csv", "b.jsonl"):
        (work / name).write_text("text,label\ngood,1\n")
    (work / "full").mkdir()
    (work / "full" / "x").touch()
    given = {"files": ["a.csv"], "output": "new"} | change
    flags = [*given["files"], "--adapter", str(trained), "--output", given["output"], "--base-model", tiny.id]
    flags += ["--text-column", given["text_column"]] if "text_column" in given else []
    assert scoring.main(flags) == 1
    said = capsys.readouterr().err
    assert says in said
    assert len(said.strip().splitlines()) == 1
