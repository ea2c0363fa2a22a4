"""Which words of a text moved an adapter's answer, measured by leaving each of them out.

A word's weight is the change of the label's calibrated probability without that word (occlusion: Li et al. 2016,
arXiv:1612.08220), on the model as it is served. A long text has more words than can be tried in a second, so the
gradient of one pass chooses the words that are tried.
"""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

import regex
import torch

from adapter_arena import settings, tasks
from adapter_arena.errors import RequestError
from adapter_arena.models import compute, tokens, truncation
from adapter_arena.serve.checks import text_error
from adapter_arena.serve.engine import Engine
from adapter_arena.serve.served import Served
from adapter_arena.texts import Text, length, parts

# Words that are tried per text; each costs one pass, 25 ms at 384 tokens on two cores. Of the five heaviest words of
# 30 IMDb test reviews, known by trying every word, they include 93 % with LoRA and 86 % with IA3, the heaviest always.
MAX_WORDS = 40
# Tokens in one pass, fewer than in serving: other requests wait for one such pass at most, 0.15 s.
PASS_TOKENS = 2048

# Scripts without spaces, and symbols such as emoji, are taken one character (with its marks) at a time.
_SINGLE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{So}"
_LETTER = rf"[[\p{{L}}\p{{M}}\p{{N}}_]--[{_SINGLE}]]"
# "don't", "well-made" and "7.5/10" are one word each.
_WORD = regex.compile(rf"(?=[{_SINGLE}])\X|{_LETTER}+(?:(?:['’-]|(?<=\p{{N}})[./,:](?=\p{{N}})){_LETTER}+)*", regex.V1)


@dataclass(frozen=True)
class Explanation:
    """An answer and the complete text as words in order, each with its weight.

    `words_pair` are those of the second text of a pair. A word includes the characters up to the next one, so that the
    words join to the text. A weight is the probability that is lost without the word: positive if it supports the label, negative if it speaks against it, and exactly 0 if
    it was not tried.
    """

    label: str
    """The most likely label, also of several; the name of the number of a regression."""
    confidence: float
    """The label's calibrated probability, or the number."""
    words: list[tuple[str, float]]
    words_pair: list[tuple[str, float]] | None = None
    """The words of the second text of a pair."""
    is_number: bool = False
    """Whether the weights are differences of a number, in its own scale."""

    def to_dict(self) -> dict:
        """Return the explanation as the API does; a regression has `value` instead of `confidence`."""
        words = [list(word) for word in self.words]
        name = "value" if self.is_number else "confidence"
        explanation = {"label": self.label, name: self.confidence, "words": words}
        if self.words_pair is not None:
            explanation["words_pair"] = [list(word) for word in self.words_pair]
        return explanation


def explain(engine: Engine, text: Text, adapter: str | None = None) -> Explanation:
    """Explain the answer of an adapter, by default the first one. Raises the errors of `Engine.predict`."""
    served = engine.get(adapter)
    _check(text, served)
    complete = _encode(engine, served, text)
    logits = engine.run_exclusively(lambda: engine.forward(served, [complete]))
    probabilities = served.scores(logits)[0]
    label = int(probabilities.argmax())  # also of several labels; a regression has one output
    confidence = float(probabilities[label])
    edges = text_edges(text)
    weights = [0.0] * (len(edges) - 1)
    chosen = _choose_words(engine, served, text, label)
    rows_per_pass = max(PASS_TOKENS // len(complete.ids), 1)
    for start in range(0, len(chosen), rows_per_pass):
        words = chosen[start : start + rows_per_pass]
        shortened = [_encode(engine, served, _without(text, edges[i], edges[i + 1])) for i in words]
        # Other requests are served between the passes.
        logits = engine.run_exclusively(lambda rows=shortened: engine.forward(served, rows))
        for i, row in zip(words, logits):
            weights[i] = float(probabilities[label] - served.scores(row)[label])
    content = "".join(parts(text))
    words = [(content[start:end], weight) for (start, end), weight in zip(pairwise(edges), weights)]
    words_pair = None
    if not isinstance(text, str):
        n_first = len(word_edges(text[0])) - 1
        words, words_pair = words[:n_first], words[n_first:]
    is_number = served.adapter.task == tasks.REGRESSION
    return Explanation(served.adapter.labels[label], confidence, words, words_pair, is_number)


def _check(text: Text, served: Served) -> None:
    """Raise RequestError if the text is invalid or too long."""
    if error := text_error(text, served.adapter):
        raise error
    limit = settings.get("ARENA_MAX_EXPLAIN")
    if length(text) > limit:
        raise RequestError(
            f"The text has {length(text):,} characters, over the limit of {limit:,.0f} for explanations "
            "(ARENA_MAX_EXPLAIN). Shorten it."
        )


def word_edges(text: str) -> list[int]:
    """Return the start of each word and the end of the text: word i is `text[edges[i]:edges[i + 1]]`."""
    starts = [match.start() for match in _WORD.finditer(text)]
    return [0, *starts[1:], len(text)]


def text_edges(text: Text) -> list[int]:
    """Return the `word_edges` of a text; those of a pair are counted through both texts."""
    edges = word_edges(parts(text)[0])
    for second in parts(text)[1:]:
        start = edges[-1]
        edges += [start + edge for edge in word_edges(second)[1:]]
    return edges


def _without(text: Text, start: int, end: int) -> Text:
    """Return the text, or the pair, without the characters from `start` to `end`, which are in one text of a pair."""
    if isinstance(text, str):
        return text[:start] + text[end:]
    first, second = text
    if start < len(first):
        return first[:start] + first[end:], second
    return first, second[: start - len(first)] + second[end - len(first) :]


def _encode(engine: Engine, served: Served, text: Text) -> truncation.Encoded:
    return tokens.encode(engine.tokenizer, [text], served.max_length)[0]


def _choose_words(engine: Engine, served: Served, text: Text, label: int) -> list[int]:
    """Return the words to try, in order: all in the adapter's window, or the MAX_WORDS with the steepest tokens."""
    word_of_token = _words_of_tokens(engine, served, text)
    steepness = {word: 0.0 for word in word_of_token if word is not None}
    if len(steepness) > MAX_WORDS:
        row = _encode(engine, served, text)
        slopes = engine.run_exclusively(lambda: _slopes(engine, served, row, label))
        for word, slope in zip(word_of_token, slopes):
            if word is not None:
                steepness[word] += slope
    steepest = sorted(steepness, key=steepness.get, reverse=True)
    return sorted(steepest[:MAX_WORDS])


def _words_of_tokens(engine: Engine, served: Served, text: Text) -> list[int | None]:
    """Return for each token the index of its word; None for special tokens."""
    edges = text_edges(text)
    words: list[int | None] = []
    for _, end in tokens.spans(engine.tokenizer, text, served.max_length):
        if end == 0:
            words.append(None)
        else:
            # A token may begin with the space before its word, so its last character decides.
            words.append(bisect_right(edges, end - 1) - 1)
    return words


def _slopes(engine: Engine, served: Served, row: truncation.Encoded, label: int) -> list[float]:
    """Return how steeply the label's log-odds, or the number, change with each token's embedding: the gradient's L2 norm, (tokens,).

    First-derivative saliency (Li et al. 2016, arXiv:1506.01066). The weights are frozen, so only the embeddings get a
    gradient, and nothing of it remains on the model.
    """
    ids = torch.tensor([row.ids], device=engine.model.device)
    inputs = {"attention_mask": torch.ones_like(ids)}
    types = engine.token_types([row])
    if types is not None:
        inputs["token_type_ids"] = torch.tensor(types, device=engine.model.device)
    with torch.enable_grad(), compute.autocast(engine.model):
        embedded = served.model.get_input_embeddings()(ids).detach().requires_grad_()
        logits = served.model(inputs_embeds=embedded, **inputs).logits[0].float()
        output = logits[label]
        if served.adapter.task == tasks.SINGLE_LABEL:
            output = output - torch.cat([logits[:label], logits[label + 1 :]]).logsumexp(0)
        (gradient,) = torch.autograd.grad(output, embedded)
    return gradient[0].float().norm(dim=-1).tolist()
