"""Which words of a text moved an adapter's answer, measured by taking each of them out.

A word's weight is the change of the label's calibrated probability when the text is asked again
without it (occlusion: Li et al. 2016, arXiv:1612.08220), on the model as it is served. A long text
has more words than can be tried in a second; one gradient pass chooses which are worth it.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise

import regex
import torch

from adapter_arena import settings
from adapter_arena.errors import RequestError
from adapter_arena.models import bases, tokens
from adapter_arena.serve.engine import Engine, check
from adapter_arena.serve.served import Served

# Words tried of one text, each costing one pass, 25 ms at 384 tokens on two cores. Of the five heaviest words of
# 30 IMDb test reviews, known by trying every word, they hold 93 % with LoRA and 86 % with IA3, the heaviest always.
MAX_WORDS = 40
# Tokens in one pass, less than in serving: other people's requests wait for one such pass at most, 0.15 s.
PASS_TOKENS = 2048

# Scripts without spaces, and symbols such as emoji, are taken one character (with its marks) at a time.
_SINGLE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{So}"
_LETTER = rf"[[\p{{L}}\p{{M}}\p{{N}}_]--[{_SINGLE}]]"
# One word: "don't", "well-made" and "7.5/10" are.
_WORD = regex.compile(rf"(?=[{_SINGLE}])\X|{_LETTER}+(?:(?:['’-]|(?<=\p{{N}})[./,:](?=\p{{N}})){_LETTER}+)*", regex.V1)


@dataclass(frozen=True)
class Explanation:
    """The label, its calibrated probability, and the whole text as words in order, each with its weight.

    A word carries what follows it up to the next, so that the words join to the text. A weight is the
    probability lost without the word: above 0 it speaks for the label, below 0 against it; exactly 0
    if it was not tried.
    """

    label: str
    confidence: float
    words: list[tuple[str, float]]

    def to_dict(self) -> dict:
        """As the API returns it."""
        return {**vars(self), "words": [list(word) for word in self.words]}


def explain(engine: Engine, text: str, adapter: str | None = None) -> Explanation:
    """Why `adapter` (the first when None) answers as it does. Raises the errors of Engine.predict."""
    served = engine.find(adapter)
    if error := check(text):
        raise error
    if len(text) > (most := settings.number("ARENA_MAX_EXPLAIN")):
        raise RequestError(
            f"The text has {len(text):,} characters, over the limit of {most:,.0f} whose words are weighed "
            "(ARENA_MAX_EXPLAIN): shorten it."
        )
    whole = _encode(engine, served, text)
    before = served.probabilities(engine.call(lambda: engine.forward(served, [whole]))[0])
    label = int(before.argmax())
    edges = word_edges(text)
    chosen = _choose(engine, served, text, edges, whole, label)
    without = (_encode(engine, served, text[: edges[i]] + text[edges[i + 1] :]) for i in chosen)
    weights = [0.0] * (len(edges) - 1)
    for i, logits in zip(chosen, _forward(engine, served, without, PASS_TOKENS // len(whole.ids))):
        weights[i] = float(before[label] - served.probabilities(logits)[label])
    words = [text[start:end] for start, end in pairwise(edges)]
    return Explanation(served.adapter.labels[label], float(before[label]), list(zip(words, weights)))


def word_edges(text: str) -> list[int]:
    """Where the words of a text begin, and its end: word i with what follows it is text[edges[i]:edges[i + 1]]."""
    starts = [match.start() for match in _WORD.finditer(text)]
    return [0, *starts[1:], len(text)]


def _encode(engine: Engine, served: Served, text: str) -> tokens.Encoded:
    return tokens.encode(engine.tokenizer, [text], served.max_length)[0]


def _forward(engine: Engine, served: Served, rows: Iterator[tokens.Encoded], n: int) -> Iterator[torch.Tensor]:
    """Logits, shape (labels,), of each row, `n` rows in a pass; others' requests are answered between passes."""
    while batch := list(islice(rows, max(n, 1))):
        yield from engine.call(partial(engine.forward, served, batch))


def _choose(
    engine: Engine, served: Served, text: str, edges: list[int], whole: tokens.Encoded, label: int
) -> list[int]:
    """The words to try: all that the model sees, or the MAX_WORDS of them with the steepest tokens."""
    ends = [end for _, end in tokens.spans(engine.tokenizer, text, served.max_length)]
    # A token may begin with the space before its word, so its last character says whose it is.
    words = [bisect_right(edges, end - 1) - 1 if end else None for end in ends]
    slopes = dict.fromkeys((word for word in words if word is not None), 0.0)
    if len(slopes) > MAX_WORDS:
        for word, slope in zip(words, engine.call(lambda: _slopes(engine, served, whole, label))):
            if word is not None:
                slopes[word] += slope
    return sorted(sorted(slopes, key=slopes.get, reverse=True)[:MAX_WORDS])


def _slopes(engine: Engine, served: Served, row: tokens.Encoded, label: int) -> list[float]:
    """How steeply the label's log-odds change with each token's embedding: the gradient's L2 norm, (tokens,).

    First-derivative saliency (Li et al. 2016, arXiv:1506.01066). The weights are frozen, so the gradient
    is the embeddings' alone and nothing of it stays on the model.
    """
    ids = torch.tensor([row.ids], device=engine.model.device)
    with torch.enable_grad(), bases.autocast(engine.model):
        embedded = served.model.get_input_embeddings()(ids).detach().requires_grad_()
        logits = served.model(inputs_embeds=embedded, attention_mask=torch.ones_like(ids)).logits[0].float()
        others = torch.cat([logits[:label], logits[label + 1 :]])
        (gradient,) = torch.autograd.grad(logits[label] - others.logsumexp(0), embedded)
    return gradient[0].float().norm(dim=-1).tolist()
