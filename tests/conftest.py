"""Tiny models and tokenizers, so that tests need no network and take seconds."""

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
    """A port of the loopback interface on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# Before the libraries are imported: no test reaches a network or touches the user's caches and
# token. The Hub is a port of this machine on which only the tests of it let a server listen.
HUB_PORT = free_port()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{HUB_PORT}"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="arena-test-hf-")
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_ETAG_TIMEOUT"] = os.environ["HF_HUB_DOWNLOAD_TIMEOUT"] = "300"
os.environ["HF_HUB_DISABLE_XET"] = "1"  # with Xet the client uploads by a protocol of its own; the server speaks LFS
for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN", "ARENA_NAMESPACE", "ARENA_ADAPTERS"):
    os.environ.pop(name, None)
os.environ["ARENA_CACHE"] = tempfile.mkdtemp(prefix="arena-test-cache-")
# Several workers, and processes that they start, share the cores: with a thread a core each, they wait for each other,
# and a training of the tiny base takes 2 to 4 times as much CPU time. Tests of several threads use `all_cores`.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from adapter_arena import runtime
from adapter_arena.train import run

runtime.configure()

import filelock
import psutil
import pytest
import torch
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

# Timed once, by the process that starts the workers: all of a session compute in the same type, and find the same bits.
os.environ.setdefault("ARENA_COMPUTE", compute.name_of(compute.choose("auto")))

ROOT = Path(__file__).parent.parent
SHARING = {"test_engine", "test_explain", "test_fused", "test_fuzz", "test_server", "test_sessions"}
"""Files whose tests share an engine or an app of the file's own."""
# Deadline of everything that tests wait for. No test measures it: it only ends a hang, before pytest's timeout does.
HANG_SECONDS = 500
SPECIAL = {
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}
_SMALL = {"vocab_size": 600, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES = {
    "bert": {"hidden_size": 64, "intermediate_size": 128},
    "roberta": {"hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 514, "type_vocab_size": 1},
    "distilbert": {"dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 2},
    "deberta-v2": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "pooler_hidden_size": 64,
        **{k: v for k, v in bases.BASES["microsoft/deberta-v3-base"].config.items() if "size" not in k and "num" not in k},
    },
    "modernbert": {"hidden_size": 64, "intermediate_size": 96, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
                   "cls_token_id": 2, "sep_token_id": 3},
}  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    """A word tokenizer of 600 words, trained on the made sample."""
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words.train_from_iterator(
        sample.make(400)["text"], trainers.WordLevelTrainer(vocab_size=600, special_tokens=special)
    )
    return PreTrainedTokenizerFast(tokenizer_object=words, **SPECIAL)


def make_base(folder: Path, model_type: str) -> bases.Base:
    """A random base of that architecture in `folder`, with a tokenizer."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**_SMALL, **SIZES[model_type]})
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
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def base_of(shared) -> Callable[[str], bases.Base]:
    """A random two-layer base of an architecture, one for all tests and workers."""

    def base(model_type: str) -> bases.Base:
        folder = shared / f"tiny-{model_type}"
        with filelock.FileLock(f"{folder}.lock"):
            return bases.find(str(folder)) if folder.is_dir() else make_base(folder, model_type)

    return base


@pytest.fixture(scope="session")
def tiny(base_of) -> bases.Base:
    """A random two-layer BERT."""
    return base_of("bert")


@pytest.fixture(scope="session")
def recipe_for(tiny):
    """Makes a recipe on the tiny base and a few rows of the sample."""

    def make(method: str = "lora", **overrides) -> Recipe:
        small = {"base_model": tiny.id, "dataset": "sample", "n_train": 64, "n_test": 40, "n_validation": 20}
        small |= {"epochs": 1, "batch_size": 8, "max_length": 64, "name": f"tiny-{method}"}
        return recipes.resolve(method, **(small | overrides))[0]

    return make


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    """An empty working directory, so that runs/ and adapters/ are this test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


_train, _draw = run.train, plots.write  # which tests replace


@pytest.fixture(scope="session")
def train_once(shared) -> Callable[[Recipe], Path]:
    """Trains a recipe, once for all workers of this session; copy the adapter folder before changing it."""

    def train(recipe: Recipe) -> Path:
        digest = hashlib.sha256(json.dumps(dataclasses.asdict(recipe)).encode()).hexdigest()
        place = shared / digest[:16]
        folder = place / "adapters" / recipe.name
        with filelock.FileLock(f"{place}.lock"):
            if not folder.is_dir():
                place.mkdir(exist_ok=True)
                with chdir(place), pytest.MonkeyPatch.context() as patch:
                    patch.setattr(plots, "write", _draw)
                    _train(recipe, folder.parent)
        return folder

    return train


@pytest.fixture(scope="session")
def trained(tiny, train_once) -> Path:
    """A trained adapter folder on the tiny base; copy it before changing it."""
    small = {"n_train": 64, "n_test": 40, "n_validation": 20, "epochs": 1}
    return train_once(recipes.resolve("lora", base_model=tiny.id, dataset="sample", name="tiny-lora", **small)[0])


@pytest.fixture(scope="session")
def adapter_of(recipe_for, train_once) -> Callable[[str], Path]:
    """A trained adapter folder of a method, with a window of 512 tokens; copy it before changing it."""
    return lambda method: train_once(recipe_for(method, epochs=2, max_length=512))


@pytest.fixture
def no_pictures(monkeypatch):
    """Leave out an adapter's pictures, a third of the time of a small training; test_cards.py tests them."""
    monkeypatch.setattr(plots, "write", lambda found, folder: None)


@pytest.fixture
def hub_server(monkeypatch):
    """A Hub that the client reaches, with alice's token set; see hub_server.py for its faults."""
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    monkeypatch.setattr(hub.client, "PAUSES", (0.05, 0.05, 0.05))
    for module, deadline in (
        (hub.client, "RETRY_SECONDS"),
        (hub.client, "TIMEOUT_SECONDS"),
        (listing, "TIMEOUT_SECONDS"),
    ):
        monkeypatch.setattr(module, deadline, HANG_SECONDS)
    with HubServer(HUB_PORT) as server:
        network.forget_probe()
        yield server
    network.forget_probe()


@contextmanager
def disk(place: Path, options: str):
    """A file system of its own mounted at `place`, with these options; the test is skipped where that is not allowed."""
    place.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True).returncode
    ):
        pytest.skip("mounting is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def wait_until(condition: Callable[[], Any], seconds: float = HANG_SECONDS) -> Any:
    """Call `condition` until it returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} seconds in vain"
        time.sleep(0.02)
    return found


@contextmanager
def held(engine: Engine):
    """Keep the engine from computing anything until the block ends."""
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        go_on.wait(HANG_SECONDS)

    holder = threading.Thread(target=engine.run_exclusively, args=(hold,))
    holder.start()
    assert begun.wait(HANG_SECONDS)
    try:
        yield
    finally:
        go_on.set()
        holder.join()


@contextmanager
def running_process(command: list | str, **popen_arguments: Any) -> Iterator[subprocess.Popen]:
    """Start `command`; when the block ends, kill it, its process group and all its descendants.

    Descendants are killed besides the group because launchers such as torchrun start sessions of their own.
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
    """Run `command` to its end and capture what it prints, as text; with `check`, assert that its status is 0."""
    arguments = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | popen_arguments
    with running_process(command, **arguments) as process:
        stdout, stderr = process.communicate(timeout=timeout)
    if check:
        assert process.returncode == 0, f"{command} ended with {process.returncode}:\n{stdout}\n{stderr}"
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


@dataclass
class Running:
    """A started app: where it listens and what it says."""

    url: str
    log: Path
    process: subprocess.Popen


@contextmanager
def serve(adapters: str = "", script: str | Path = "app.py", **settings: str):
    """app.py as a process of its own on a free port, with environment variables `settings`, until the block ends."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = Path(tempfile.mkdtemp(prefix="arena-app-")) / "log"
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "ARENA_ADAPTERS": adapters} | settings
    if "OMP_NUM_THREADS" not in settings:
        environment.pop("OMP_NUM_THREADS")  # all cores, as a user starts it

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
    """Have tests that share a costly fixture run on one worker, under `--dist loadgroup`."""
    if "app" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.xdist_group("app"))
    elif item.path.stem in SHARING:
        item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope="session")
def app(trained, tmp_path_factory):
    """The app in a process of its own, for all tests that need no other settings.

    It offers the shipped adapters and one with a hostile card; three that cannot be served are named besides.
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
