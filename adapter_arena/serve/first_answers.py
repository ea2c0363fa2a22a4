"""The answers that the page shows before its visitor has typed: computed once in the background, and cached on disk."""

import dataclasses
import hashlib
import json
import math
import os
import threading
from concurrent.futures import Future
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import adapter_arena
from adapter_arena import files, results
from adapter_arena.adapters.store import Adapter
from adapter_arena.errors import ArenaError
from adapter_arena.models import bases, weights
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.entries import Answer
from adapter_arena.serve.explain import Explanation, explain
from adapter_arena.serve.served import Prediction
from adapter_arena.texts import Text, parts

_FORMAT = 2
"""Number of the cache file's format. Files of other formats are not read."""
_ROUNDS = 3
"""The answers are cached, so a duration must not be that of a moment in which the machine was busy."""
_LIBRARIES = ("torch", "transformers", "peft")
"""Libraries of which another version may compute other numbers."""


@dataclasses.dataclass(frozen=True)
class FirstAnswers:
    """The answers for one text, and the words that moved the answer of `explained`."""

    answers: list[Answer]
    """The untrained base and the adapters, as `Catalogue.compare` returns them."""
    explained: str | None = None
    """Name of the adapter whose answer is explained; None if there is no explanation."""
    explanation: Explanation | None = None


class FirstScreen:
    """A text and the adapters that answer it before the first visitor comes."""

    def __init__(self, catalogue: Catalogue, text: Text, names: list[str], explained: str | None):
        """The answer of the adapter `explained` is explained as well. Nothing is computed before `start`."""
        self.text = text
        self.names = names
        self.future: Future[FirstAnswers] = Future()
        """Set by a thread after `start`: the answers, or the ArenaError that prevented them."""
        self._catalogue = catalogue
        self._explained = explained

    def start(self) -> None:
        """Read the answers from the cache or compute them, in a thread."""
        threading.Thread(target=self._run, name="first answers", daemon=True).start()

    def _run(self) -> None:
        try:
            self.future.set_result(self._find())
        except BaseException as error:  # whoever waits for the future must not wait for ever
            self.future.set_exception(error)
            if not isinstance(error, ArenaError):
                raise

    def _find(self) -> FirstAnswers:
        if not self.names:
            return FirstAnswers([])
        path = files.cache_folder() / "first-answers" / f"{self._key()}.json"
        cached = _read(path)
        if cached is not None:
            return cached
        computed = self._compute()
        # An answer that failed may succeed after the next start.
        if all(answer.error is None for answer in computed.answers):
            files.write_cache(path, _to_json(computed))
            with suppress(OSError):
                files.delete_unused(path.parent)
        return computed

    def _compute(self) -> FirstAnswers:
        self._catalogue.compare(self.text, self.names)  # loads the adapters, which should not count as their time
        rounds = [self._catalogue.compare(self.text, self.names) for _ in range(_ROUNDS)]
        answers = _with_shortest_times(rounds)
        if self._explained is None:
            return FirstAnswers(answers)
        try:
            engine = self._catalogue.engine_for(self._catalogue.find(self._explained))
            explanation = explain(engine, self.text, self._explained)
        except ArenaError:  # the page reports it to the visitor who chooses the row
            return FirstAnswers(answers)
        return FirstAnswers(answers, self._explained, explanation)

    def _key(self) -> str:
        """Return a digest of all that the answers depend on."""
        engine = self._catalogue.engine
        facts = [
            adapter_arena.__version__,
            [version(name) for name in _LIBRARIES],
            [engine.base.label, _version_of_base(engine.base), engine.precision, engine.compute],
            parts(self.text),
            self._explained,
            [_digest(self._catalogue.find(name).adapter) for name in self.names],
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _with_shortest_times(rounds: list[list[Answer]]) -> list[Answer]:
    """Return the answers of the last round, each with its shortest duration over the rounds.

    As `timeit` says, longer ones are due to whatever else the machine does, here the start of the app.
    """
    shortest: dict[str, float] = {}
    for answers in rounds:
        for answer in answers:
            shortest[answer.name] = min(answer.milliseconds, shortest.get(answer.name, math.inf))
    return [dataclasses.replace(answer, milliseconds=shortest[answer.name]) for answer in rounds[-1]]


def _version_of_base(base: bases.Base) -> str | None:
    """Return the hash of the base model's weights if it is known or local, else its commit."""
    if base.sha256 is None and base.folder is not None:
        return weights.sha256(base.folder)
    return base.sha256 or base.revision


def _digest(adapter: Adapter) -> list:
    """Return what identifies an adapter: its name, and the digests of its weights, settings and results."""
    paths = [path for path in sorted(adapter.folder.iterdir()) if path.suffix == ".safetensors"]
    settings = adapter.folder / ("config.json" if adapter.is_full else "adapter_config.json")
    paths += [settings, adapter.folder / results.FILE]
    return [adapter.name, adapter.labels, [files.sha256_of(path) for path in paths if path.is_file()]]


def _to_json(found: FirstAnswers) -> str:
    return json.dumps({"format": _FORMAT} | dataclasses.asdict(found))


def _read(path: Path) -> FirstAnswers | None:
    """Return the cached answers; None if there is no readable file."""
    try:
        content = json.loads(path.read_text())
        if content["format"] != _FORMAT:
            return None
        answers = [_answer(fields) for fields in content["answers"]]
        explanation = content["explanation"] and Explanation(**content["explanation"])
        found = FirstAnswers(answers, content["explained"], explanation)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with suppress(OSError):
        os.utime(path)  # `delete_unused` keeps it
    return found


def _answer(fields: dict) -> Answer:
    prediction = Prediction(**fields["prediction"]) if fields["prediction"] else None
    return Answer(**(fields | {"prediction": prediction}))
