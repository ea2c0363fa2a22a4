"""Fixtures and helpers of all tests: tiny models that need no network, processes, and a running app."""

import atexit
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def free_port() -> int:
    """Return a port of the loopback interface on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def temporary_folder(prefix: str) -> Path:
    """Return a new folder that is deleted when this process ends."""
    folder = tempfile.mkdtemp(prefix=prefix)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


# The libraries read these variables when they are imported. No test reaches a network or the user's caches and token:
# the Hub is a port of this machine, on which only the tests of the Hub start a server.
HUB_PORT = free_port()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{HUB_PORT}"
os.environ["HF_HOME"] = str(temporary_folder("arena-test-hf-"))
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_ETAG_TIMEOUT"] = os.environ["HF_HUB_DOWNLOAD_TIMEOUT"] = "300"
os.environ["HF_HUB_DISABLE_XET"] = "1"  # the tests' server supports uploads by LFS, not by Xet's own protocol
for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN", "ARENA_NAMESPACE", "ARENA_ADAPTERS"):
    os.environ.pop(name, None)
os.environ["ARENA_CACHE"] = str(temporary_folder("arena-test-cache-"))
# Workers and the processes that they start share the cores. If each used all of them, training the tiny base would take
# 2 to 4 times as much CPU time. Tests of several threads use the fixture `all_cores`.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from adapter_arena import runtime
from adapter_arena.train import run

runtime.configure()

import filelock
import psutil
import pytest
import torch
from browsing import HANG_SECONDS, browser, page  # noqa: F401  # fixtures, and a timeout for all tests
from hub_server import HubServer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from adapter_arena import hub, network
from adapter_arena.adapters import plots
from adapter_arena.data import sample
from adapter_arena.models import bases, compute
from adapter_arena.recipe import Recipe
from adapter_arena.serve import listing
from adapter_arena.serve.engine import Engine
from adapter_arena.train import recipes

# Measured once, by the process that starts the workers, so that all of them compute in the same type and get equal bits.
os.environ.setdefault("ARENA_COMPUTE", compute.name_of(compute.choose("auto")))

ROOT = Path(__file__).parent.parent
ONE_WORKER_FILES = {"test_engine", "test_explain", "test_fused", "test_fuzz", "test_server", "test_sessions"}
"""Files whose tests share an engine or an app of the file's own."""
SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_DEBERTA_SETTINGS = {
    key: value
    for key, value in bases.BASES["microsoft/deberta-v3-base"].config.items()
    if "size" not in key and "num" not in key
}
_SMALL = {"vocab_size": 600, "num_hidden_layers": 2, "num_attention_heads": 2}
_ROBERTA = {"hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 514, "type_vocab_size": 1}
_DECODER = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 32, "num_key_value_heads": 1}
SIZES = {
    "bert": {"hidden_size": 64, "intermediate_size": 128},
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "data2vec-text": _ROBERTA,
    "distilbert": {"dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 2},
    "deberta-v2": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "pooler_hidden_size": 64,
        **_DEBERTA_SETTINGS,
    },
    "llama": _DECODER,
    "qwen3": _DECODER,
    "modernbert": {
        "hidden_size": 64,
        "intermediate_size": 96,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "cls_token_id": 2,
        "sep_token_id": 3,
    },
}
"""Config of a tiny model of each architecture, without what `_SMALL` has for all."""


SMALL_RUN = {"dataset": "sample", "n_train": 64, "n_test": 40, "n_validation": 20, "epochs": 1}


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a word tokenizer of 600 words, trained on the made-up sample."""
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordLevelTrainer(vocab_size=600, special_tokens=list(SPECIAL_TOKENS.values()))
    words.train_from_iterator(sample.make(400)["text"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=words, **SPECIAL_TOKENS)


def make_base(folder: Path, model_type: str) -> bases.Base:
    """Save a random base of an architecture in `folder`, with a tokenizer, and return it."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **(_SMALL | SIZES[model_type]))
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return bases.find(str(folder))


@pytest.fixture
def all_cores():
    """Compute in as many threads as there are cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder that all workers of this session share."""
    session_folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session_folder = session_folder.parent
    folder = session_folder / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def base_of(shared) -> Callable[[str], bases.Base]:
    """Return a function that makes a random two-layer base of an architecture, once for all tests and workers."""

    def base(model_type: str) -> bases.Base:
        folder = shared / f"tiny-{model_type}"
        with filelock.FileLock(f"{folder}.lock"):
            if folder.is_dir():
                return bases.find(str(folder))
            return make_base(folder, model_type)

    return base


@pytest.fixture(scope="session")
def tiny(base_of) -> bases.Base:
    """A random two-layer BERT."""
    return base_of("bert")


@pytest.fixture(scope="session")
def recipe_for(tiny):
    """Return a function that makes a recipe on the tiny base and a few rows of the sample."""

    def make(method: str = "lora", **overrides) -> Recipe:
        fields = SMALL_RUN | {"base_model": tiny.id, "batch_size": 8, "max_length": 64, "name": f"tiny-{method}"}
        recipe, _ = recipes.resolve(method, **(fields | overrides))
        return recipe

    return make


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    """An empty working directory with this test's own runs/ and adapters/."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Tests replace these.
_train = run.train
_write_plots = plots.write


@pytest.fixture(scope="session")
def train_once(shared) -> Callable[[Recipe], Path]:
    """Return a function that trains a recipe, once for all workers; copy the adapter folder before changing it."""

    def train(recipe: Recipe) -> Path:
        content = json.dumps(dataclasses.asdict(recipe))
        digest = hashlib.sha256(content.encode()).hexdigest()
        place = shared / digest[:16]
        folder = place / "adapters" / recipe.name
        with filelock.FileLock(f"{place}.lock"):
            if not folder.is_dir():
                place.mkdir(exist_ok=True)
                with chdir(place), pytest.MonkeyPatch.context() as patch:
                    patch.setattr(plots, "write", _write_plots)
                    _train(recipe, folder.parent)
        return folder

    return train


@pytest.fixture(scope="session")
def trained(tiny, train_once) -> Path:
    """A trained adapter folder on the tiny base; copy it before changing it."""
    recipe, _ = recipes.resolve("lora", base_model=tiny.id, name="tiny-lora", **SMALL_RUN)
    return train_once(recipe)


@pytest.fixture(scope="session")
def adapter_of(recipe_for, train_once) -> Callable[[str], Path]:
    """Return a function that trains an adapter of a method, with a window of 512 tokens; copy it before changing it."""
    return lambda method: train_once(recipe_for(method, epochs=2, max_length=512))


@pytest.fixture
def no_pictures(monkeypatch):
    """Do not draw an adapter's plots, which take a third of a small training's time; test_cards.py tests them."""
    monkeypatch.setattr(plots, "write", lambda found, folder: None)


@pytest.fixture
def hub_server(monkeypatch):
    """A running Hub and alice's token in the environment; see hub_server.py for the faults it can have."""
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    monkeypatch.setattr(hub.client, "PAUSES", (0.05, 0.05, 0.05))
    monkeypatch.setattr(hub.client, "RETRY_SECONDS", HANG_SECONDS)
    monkeypatch.setattr(hub.client, "TIMEOUT_SECONDS", HANG_SECONDS)
    monkeypatch.setattr(listing, "TIMEOUT_SECONDS", HANG_SECONDS)
    with HubServer(HUB_PORT) as server:
        network.forget_probe()
        yield server
    network.forget_probe()


@contextmanager
def disk(place: Path, options: str):
    """Mount a separate file system with these options at `place`; skip the test if mounting is not allowed."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def wait_until(condition: Callable[[], Any], seconds: float = HANG_SECONDS) -> Any:
    """Call `condition` until its result is true, and return the result; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"the condition was still false after {seconds} seconds"
        time.sleep(0.02)
    return result


@contextmanager
def paused(engine: Engine):
    """Keep the engine from computing anything until the block ends."""
    is_paused = threading.Event()
    may_continue = threading.Event()

    def pause() -> None:
        is_paused.set()
        may_continue.wait(HANG_SECONDS)

    blocker = threading.Thread(target=engine.run_exclusively, args=(pause,))
    blocker.start()
    assert is_paused.wait(HANG_SECONDS)
    try:
        yield
    finally:
        may_continue.set()
        blocker.join()


@contextmanager
def running_process(command: list | str, **popen_arguments: Any) -> Iterator[subprocess.Popen]:
    """Start `command`; when the block ends, kill it, its process group and all its descendants.

    Descendants are killed in addition to the group because launchers such as torchrun start sessions of their own.
    """
    process = subprocess.Popen(command, start_new_session=True, **popen_arguments)
    try:
        yield process
    finally:
        descendants = []
        with suppress(psutil.NoSuchProcess):
            descendants = psutil.Process(process.pid).children(recursive=True)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for descendant in descendants:
            with suppress(psutil.NoSuchProcess):
                descendant.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def run_process(
    command: list | str, timeout: float = HANG_SECONDS, check: bool = False, **popen_arguments: Any
) -> subprocess.CompletedProcess:
    """Run `command` and return its captured output as text; with `check`, assert that its exit status is 0."""
    arguments = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | popen_arguments
    with running_process(command, **arguments) as process:
        stdout, stderr = process.communicate(timeout=timeout)
    if check:
        assert process.returncode == 0, f"{command} ended with {process.returncode}:\n{stdout}\n{stderr}"
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


@dataclass
class Running:
    """A running app: its address, its log and its process."""

    url: str
    log: Path
    process: subprocess.Popen


@contextmanager
def serve(adapters: str = "", script: str | Path = "app.py", **settings: str):
    """Run app.py in a process of its own, on a free port and with these environment variables, until the block ends."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = temporary_folder("arena-app-") / "log"
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "ARENA_ADAPTERS": adapters} | settings
    if "OMP_NUM_THREADS" not in settings:
        environment.pop("OMP_NUM_THREADS", None)  # all cores, as when a user starts it

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            return False
        return True

    with (
        log.open("w") as out,
        running_process([sys.executable, script], cwd=ROOT, env=environment, stdout=out, stderr=out) as process,
    ):
        wait_until(answers)
        yield Running(url, log, process)
        process.terminate()
        assert process.wait(HANG_SECONDS) == 0, log.read_text()


def pytest_itemcollected(item):
    """Run the tests that share an expensive fixture on one worker, under `--dist loadgroup`."""
    if "app" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.xdist_group("app"))
    elif item.path.stem in ONE_WORKER_FILES:
        item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope="session")
def app(trained, tmp_path_factory):
    """A running app for all tests that need no other settings.

    It serves the shipped adapters and one with a hostile card; its setting also names three that cannot be served: one
    that is damaged, one for another base model, and one that does not exist.
    """
    place = tmp_path_factory.mktemp("app")
    hostile = shutil.copytree(ROOT / "adapters" / "minilm-imdb-ia3", place / "hostile")
    attack = "<script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">\n"
    (hostile / "README.md").write_text("# A card\n\n" + attack * 12_000)  # of over 1 MB
    cut = shutil.copytree(ROOT / "adapters" / "minilm-imdb-ia3", place / "cut")
    weights = next(cut.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-99])
    with serve(f"{hostile},{cut},{trained},{place / 'nowhere'}") as running:
        yield running
        assert "Traceback" not in running.log.read_text()
