"""An adapter in the catalogue and its answer in a comparison, as the page and the API show them."""

from dataclasses import dataclass

from adapter_arena import tasks
from adapter_arena.adapters.store import Adapter
from adapter_arena.hub import RemoteAdapter
from adapter_arena.models import methods
from adapter_arena.results import Results, score_of
from adapter_arena.serve.served import Prediction


@dataclass(frozen=True)
class Entry:
    """An adapter that can be requested. `adapter` is None until it is fetched, `remote` is None for a local one."""

    name: str
    adapter: Adapter | None = None
    remote: RemoteAdapter | None = None
    latency_ms: float | None = None
    """For one text of about 64 tokens on this machine; None until it is measured."""
    loads_base: bool = False
    """Whether its first request loads a base model: it is for another one than the app's, which is not in memory."""
    base_to_load_mb: float | None = None
    """Size of that base model in memory, in MB (10^6 bytes); None if it is not known before it is looked up."""

    @property
    def source(self) -> str:
        """`hub` or `local`."""
        return "hub" if self.remote else "local"

    @property
    def revision(self) -> str | None:
        """The Hub commit that is loaded, or would be."""
        return self.adapter.revision if self.adapter else self.remote.revision

    @property
    def is_stale(self) -> bool:
        """Whether the loaded commit is not the latest one of the listing, or its files were deleted."""
        if self.adapter is None or self.remote is None:
            return False
        return self.adapter.revision != self.remote.revision or not self.adapter.folder.is_dir()

    @property
    def method(self) -> str:
        """The method's name in `methods.METHODS`, or another one."""
        return self.adapter.method if self.adapter else self.remote.method

    @property
    def title(self) -> str:
        """The method's name as it is written in prose."""
        if self.method in methods.METHODS:
            return methods.METHODS[self.method].title
        return self.method

    @property
    def merges(self) -> bool | None:
        """Whether its method can be merged into the base's weights; None of a complete model or an unknown method."""
        method = methods.METHODS.get(self.method)
        return method.merges if method and method.config else None

    @property
    def trains_on_4_bits(self) -> bool | None:
        """Whether its method trains on a base in 4 bits; None of an unknown method."""
        method = methods.METHODS.get(self.method)
        return method.base_precision == "nf4" if method else None

    @property
    def converts_to_lora(self) -> bool | None:
        """Whether its method is a LoRA or can be converted to one; None of a complete model or an unknown method."""
        method = methods.METHODS.get(self.method)
        return method.converts_to_lora if method and method.config else None

    @property
    def base_model(self) -> str | None:
        """The base model's id; None if an adapter of the Hub does not say."""
        return self.adapter.base_model if self.adapter else self.remote.base_model

    @property
    def base_note(self) -> str:
        """The base model's id, and what loading it costs if the next request loads it."""
        if not self.loads_base:
            return self.base_model or "unknown"
        if self.base_to_load_mb is None:
            return f"{self.base_model}, which the first request loads; its size is checked before it loads"
        return f"{self.base_model}, {self.base_to_load_mb:,.0f} MB that the first request loads"

    @property
    def results(self) -> Results | None:
        """The adapter's results.json; None until it is fetched, or if it has none."""
        return self.adapter.results if self.adapter else None

    @property
    def takes_pairs(self) -> bool | None:
        """Whether it classifies pairs of texts; None if that is not known."""
        return self.adapter.takes_pairs if self.adapter else None

    @property
    def dataset(self) -> str | None:
        """The dataset's id from results.json, else the name in the card."""
        if self.results:
            return self.results.dataset.id
        return self.remote.dataset if self.remote else None

    @property
    def task(self) -> str:
        """Name of an entry in `tasks.TASKS`; single-label until an adapter of the Hub is fetched."""
        return self.adapter.task if self.adapter else tasks.SINGLE_LABEL

    def score(self, metric: tasks.Metric) -> tuple[float | None, list[float] | None]:
        """Return a metric and its 95 % interval from results.json; None for what was not measured."""
        return score_of(self.results, metric) if self.results else (None, None)

    @property
    def headline(self) -> float | None:
        """The value of the metric that ranks adapters of its task: the accuracy of a single-label one."""
        return self.accuracy if self.task == tasks.SINGLE_LABEL else self.score(tasks.TASKS[self.task].objective)[0]

    @property
    def accuracy(self) -> float | None:
        """Test accuracy from results.json, else from the card."""
        if self.results:
            return self.results.evaluation.accuracy
        return self.remote.accuracy if self.remote else None

    @property
    def accuracy_ci95(self) -> list[float] | None:
        """Its 95 % interval, from the same source."""
        if self.results:
            return self.results.evaluation.accuracy_ci95
        return self.remote.accuracy_ci95 if self.remote else None

    @property
    def megabytes(self) -> float | None:
        """Size of the weights in MB (10^6 bytes)."""
        return self.adapter.size / 1e6 if self.adapter else None

    @property
    def trainable_params(self) -> int | None:
        """Number of parameters that were trained."""
        return self.results.training.trainable_params if self.results else None

    def to_dict(self) -> dict:
        """Return what `/list_adapters` says about it; None for what is not known."""
        return {
            "name": self.name,
            "method": self.method,
            "base_model": self.base_model,
            "source": self.source,
            "revision": self.revision,
            "labels": self.adapter.labels if self.adapter else None,
            "takes_pairs": self.takes_pairs,
            "dataset": self.dataset,
            "accuracy": self.accuracy,
            "accuracy_ci95": self.accuracy_ci95,
            "f1": self.results.evaluation.f1 if self.results else None,
            "ece": self.results.evaluation.ece if self.results else None,
            "trainable_params": self.trainable_params,
            "megabytes": self.megabytes,
            "latency_ms": self.latency_ms,
            "base_to_load_mb": self.base_to_load_mb,
            "notes": list(self.adapter.notes) if self.adapter else [],
            "task": self.task,
            "scores": self._scores(),
        }

    def _scores(self) -> dict[str, float]:
        """Return the metrics of a task other than single-label, by name."""
        if self.results is None or self.results.evaluation.scores is None:
            return {}
        return {name: score.value for name, score in self.results.evaluation.scores.items()}


@dataclass(frozen=True)
class Answer:
    """One adapter's answer in a comparison, and the adapter's cost; either `prediction` or `error` is None."""

    name: str
    title: str
    method: str
    prediction: Prediction | None
    error: str | None
    milliseconds: float
    accuracy: float | None
    trainable_params: int | None
    megabytes: float | None

    def to_dict(self) -> dict:
        """Return the answer as `/compare` does."""
        facts = {"method": self.method, "accuracy": self.accuracy, "milliseconds": self.milliseconds}
        if self.prediction is None:
            return {"adapter": self.name, "error": self.error} | facts
        return self.prediction.to_dict() | facts
