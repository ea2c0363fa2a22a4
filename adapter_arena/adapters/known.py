"""What is known about base models and data sets beyond what a run records: their licence and language."""

from huggingface_hub.utils import validate_repo_id

from adapter_arena.results import BaseFacts, DatasetFacts

_LICENSES = {
    "sentence-transformers/all-MiniLM-L6-v2": "apache-2.0",
    "distilbert-base-uncased": "apache-2.0",
    "bert-base-uncased": "apache-2.0",
    "FacebookAI/roberta-base": "mit",
    "microsoft/deberta-v3-base": "mit",
    "answerdotai/ModernBERT-base": "apache-2.0",
    "answerdotai/ModernBERT-large": "apache-2.0",
    "FacebookAI/roberta-large": "mit",
    "FacebookAI/xlm-roberta-base": "mit",
    "jhu-clsp/mmBERT-base": "mit",
    "Qwen/Qwen3-0.6B": "apache-2.0",
    "HuggingFaceTB/SmolLM2-135M": "apache-2.0",
}
"""Licence of each known base model; adapters for it are published under the same one."""
_LANGUAGES = {
    "stanfordnlp/imdb": "en",
    "fancyzhx/ag_news": "en",
    "fancyzhx/amazon_polarity": "en",
    "sample": "en",
    # The content of the local copies of these three that the shipped adapters were trained on.
    "4bb44a2d6d3091612b2e9f8c5dba345cc5d15cea30f0800c9d6f0bada9281a62": "en",
    "71d1a613b26ce4c0fd1b4384e7dea37f049f96a3a2b2bf18f209de6c4632b660": "en",
    "68682d707f3743a70237cb13da0c9395d42a985dd4be14f466af0f7c22e8d166": "en",
}
"""Language of each known data set, by its id or the hash of its content."""


def license_of(base: BaseFacts) -> str | None:
    """Return the licence of a base model, None if it is not known."""
    return _LICENSES.get(base.id)


def language_of(dataset: DatasetFacts) -> str | None:
    """Return the language of a data set's texts, None if it is not known."""
    if dataset.id == "sample" and dataset.source == "local":  # a folder of that name
        return None
    return _LANGUAGES.get(dataset.id) or _LANGUAGES.get(dataset.revision)


def is_hub_id(name: str) -> bool:
    """Return whether the Hub accepts `name` as the id of a base model in a card. A local folder may have any name."""
    try:
        validate_repo_id(name)
    except ValueError:  # HFValidationError
        return False
    return True
