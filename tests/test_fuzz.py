"""Whatever is put in, what comes out is an answer or one line of an ArenaError: made inputs, seeded.

FUZZ_EXAMPLES=20000 python -m pytest tests/test_fuzz.py    # as long as you like; make test tries 20 of each, make test-all 200
"""

import copy
import dataclasses
import json
import os
import shutil
import string
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import schemathesis
import yaml
from conftest import HANG_SECONDS
from hypothesis import HealthCheck, Phase, assume, example, given, settings
from hypothesis import strategies as st

from adapter_arena import results
from adapter_arena.adapters import cards, store
from adapter_arena.data import load
from adapter_arena.data.tables import Limits
from adapter_arena.data.tables import read as read_table
from adapter_arena.errors import AdapterError, ArenaError, DataError, RecipeError
from adapter_arena.recipe import FIELDS
from adapter_arena.serve.engine import Engine
from adapter_arena.serve.served import Prediction
from adapter_arena.train import recipes

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 20))
settings.register_profile(
    "here",
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 200,  # in CI the same ones every time
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
settings.load_profile("here")

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
ANYTHING = st.recursive(
    SCALARS,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside, max_size=3),
    max_leaves=6,
)
TEXTS = st.text(max_size=300) | st.text(st.characters(categories=["Cs", "Cc", "Mn", "Lo", "So", "Zs"]), max_size=60)


def one_line(error: ArenaError) -> None:
    assert str(error).strip()
    assert len(str(error).splitlines()) == 1


def places(tree, path=()):
    """The path of every value in a JSON tree."""
    yield path
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from places(value, (*path, key))


@st.composite
def harmed(draw, tree):
    """The tree with a few values replaced or taken out."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(tree))[1:] or [()]))
        if not path:
            return draw(ANYTHING)
        inside = tree
        for key in path[:-1]:
            inside = inside[key]
        if draw(st.booleans()):
            inside[path[-1]] = draw(ANYTHING)
        else:
            del inside[path[-1]]
    return tree


@pytest.fixture(scope="module")
def engine(tiny, trained):
    one = Engine(tiny)
    one.add_folder(trained)
    yield one
    one.close()


@given(st.lists(TEXTS | ANYTHING, max_size=4), st.booleans())
@example(["\ud800"], False)
@example(["a\x00b" * 50], True)
def test_texts(engine, texts, whole_text):
    answers = engine.predict(texts, whole_text=whole_text)
    assert len(answers) == len(texts)
    for text, answer in zip(texts, answers):
        if isinstance(answer, Prediction):
            assert sum(answer.scores.values()) == pytest.approx(1, abs=1e-3)
        else:
            assert not isinstance(text, str) or not text.strip() or max(text) >= "\ud800"
            one_line(answer)


@given(ANYTHING)
def test_names_of_adapters(engine, name):
    try:
        engine.get(name)
    except ArenaError as error:
        one_line(error)


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    return shutil.copytree(trained, tmp_path_factory.mktemp("harmed") / "hurt")


@given(st.data())
def test_adapter_config(engine, tiny, trained, folder, data):
    content = data.draw(harmed(json.loads((trained / store.ADAPTER_CONFIG).read_text())))
    (folder / store.ADAPTER_CONFIG).write_text(json.dumps(content))
    shutil.copy(trained / results.FILE, folder)
    try:
        engine.add(store.read(folder, tiny))
        assert len(engine.predict(["fine"], "hurt")) == 1
    except AdapterError as error:
        one_line(error)


@pytest.mark.parametrize("key", ["task_type", "base_model_name_or_path", "peft_type"])
def test_words_of_a_config_stay_on_one_line(tiny, trained, folder, key):
    """Found by an hour of the property above: U+0085 ends a line too."""
    content = json.loads((trained / store.ADAPTER_CONFIG).read_text()) | {key: "a\x85b\u2028c"}
    (folder / store.ADAPTER_CONFIG).write_text(json.dumps(content))
    with pytest.raises(AdapterError) as refused:
        store.read(folder, tiny)
    one_line(refused.value)


@given(st.data())
def test_results(engine, tiny, trained, folder, data):
    content = data.draw(harmed(json.loads((trained / results.FILE).read_text())))
    (folder / results.FILE).write_text(json.dumps(content))
    shutil.copy(trained / store.ADAPTER_CONFIG, folder)
    try:
        adapter = store.read(folder, tiny)
        engine.add(adapter)
        assert len(engine.predict(["fine"], "hurt")) == 1
    except AdapterError as error:
        one_line(error)
        return
    if adapter.results:
        try:
            assert cards.render(adapter.results)
        except AdapterError as error:
            one_line(error)
        assert results.correct_rows(adapter.results.evaluation) is None or adapter.results.evaluation.n >= 0


@given(
    st.binary(max_size=400), st.sampled_from([store.ADAPTER_WEIGHTS, store.ADAPTER_CONFIG, results.FILE, "README.md"])
)
def test_bytes_in_an_adapters_files(tiny, trained, folder, content, name):
    for file in trained.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    (folder / name).write_bytes(content)
    try:
        store.read(folder, tiny)
    except AdapterError as error:
        one_line(error)


@given(
    st.dictionaries(
        st.sampled_from([*FIELDS, "optimizer", "description", "strange"]),
        ANYTHING | st.sampled_from(["all", 16, 1e-3, "lora"]),
        max_size=5,
    )
)
@example({"name": 5})
@example({"method": ["lora"]})
@example({"seed": "x"})
@example({"label_names": 3})
def test_recipe_files(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    check_recipe(path)


@given(st.binary(max_size=200) | st.text(string.printable, max_size=200).map(str.encode))
@example(b"!!omap")
@example(b"1: 2")
@example(b"null: 2")
@example(b"{? !!set 1}")
@example(b"<<: !!pairs 1")
@example(b"!!timestamp x")
def test_bytes_of_recipe_files(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "recipe.yaml"
    path.write_bytes(content)
    check_recipe(path)


def check_recipe(path: Path) -> None:
    try:
        recipe, _ = recipes.resolve(recipe=str(path))
    except ArenaError as error:
        one_line(error)
        return
    again = json.loads(json.dumps(dataclasses.asdict(recipe)))
    assert isinstance(again["name"], str)
    assert isinstance(again["seed"], int)


CELLS = st.text(max_size=30) | st.sampled_from(
    ["", "positive", "0", "1", "text", "label", '"', ",", "\n", "\x00", "NaN"]
)
ROWS = st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=12)


@given(
    st.sampled_from([".csv", ".tsv", ".jsonl", ".txt", ".parquet"]),
    st.binary(max_size=300)
    | ROWS.map(lambda rows: "\n".join(",".join(row) for row in rows).encode(errors="replace"))
    | st.lists(ANYTHING, max_size=6).map(lambda rows: "\n".join(map(json.dumps, rows)).encode())
    | st.lists(st.fixed_dictionaries({"text": ANYTHING, "label": SCALARS}), max_size=12).map(
        lambda rows: "\n".join(map(json.dumps, rows)).encode()
    ),
)
def test_data_files(tiny, tmp_path_factory, suffix, content):
    path = tmp_path_factory.getbasetemp() / f"data{suffix}"
    path.write_bytes(content)
    try:
        read_table(path, Limits(1, 1000))
    except ArenaError as error:
        one_line(error)
    if suffix == ".txt":
        return
    try:
        recipe, _ = recipes.resolve("lora", base_model=tiny.id, dataset=str(path), n_train=4, n_test=2, n_validation=2)
        splits = load.load_splits(recipe)
        assert len(splits.train)
        assert len(splits.labels) >= 2
    except (DataError, RecipeError) as error:
        one_line(error)


def ask(url: str, body: bytes | None = None) -> tuple[int, str]:
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=HANG_SECONDS) as reply:
            return reply.status, reply.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


ENDPOINTS = ("predict", "predict_batch", "compare", "explain", "list_adapters", "v2/predict", "nothing")


@given(
    st.sampled_from(ENDPOINTS),
    st.fixed_dictionaries({"data": st.lists(TEXTS | ANYTHING, max_size=4)})
    | st.dictionaries(st.sampled_from(["data", "session_hash", "event_id", "fn_index"]), ANYTHING, max_size=3),
)
def test_payloads_of_the_api(app, name, payload):
    """Never a server error, a traceback or a path; the app goes on."""
    status, reply = ask(f"{app.url}/gradio_api/call/{name}", json.dumps(payload).encode())
    assert status < 500, (status, reply)
    if status == 200:
        event = json.loads(reply)["event_id"]
        status, reply = ask(f"{app.url}/gradio_api/call/{name}/{event}")
        assert status == 200
        assert "event: complete" in reply or "event: error" in reply
    assert "Traceback" not in reply
    assert str(Path.cwd()) not in reply


@given(st.binary(max_size=200))
def test_bytes_sent_to_the_api(app, body):
    for path in ("gradio_api/call/predict", "gradio_api/queue/join", "gradio_api/run/predict", "gradio_api/upload"):
        status, reply = ask(f"{app.url}/{path}", body)
        assert status < 500, (path, status, reply)
        assert "Traceback" not in reply


@pytest.fixture(scope="module")
def described(app):
    """Requests to every endpoint of the app's own OpenAPI description, some that fit it and some that do not."""
    schema = schemathesis.openapi.from_url(f"{app.url}/gradio_api/openapi.json")
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    return st.one_of(
        *(found.ok().as_strategy(generation_mode=mode) for found in schema.get_all_operations() for mode in modes)
    )


@given(st.data())
def test_requests_made_from_the_apps_own_description(app, described, data):
    """Never a server error, a traceback or a path; the app goes on."""
    reply = data.draw(described).call(timeout=HANG_SECONDS)
    assert reply.status_code < 500, (reply.status_code, reply.text)
    assert "Traceback" not in reply.text
    assert str(Path.cwd()) not in reply.text


@given(st.text(string.ascii_letters + string.digits + "./%\\_-~=?&", max_size=40))
@example("gradio_api/file=/etc/passwd")
@example("gradio_api/file=app.py")
@example("gradio_api/file=%2e%2e/%2e%2e/etc/passwd")
@example("file=../../../../etc/passwd")
@example("static/../app.py")
def test_paths_reach_no_file_of_ours(app, path):
    assume("logout" not in path)
    status, reply = ask(f"{app.url}/{path}")
    assert status < 500, (status, reply)
    assert "root:" not in reply
    assert "def main" not in reply


def test_the_app_lives_after_it_and_wrote_no_traceback(app):
    assert ask(f"{app.url}/health")[0] == 200
    assert "Traceback" not in app.log.read_text()
