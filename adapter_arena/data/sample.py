"""The dataset `sample`: generated film reviews, the same on every machine, for a first run without a network.

It can be learnt in under a minute and is not realistic: a high accuracy shows that training works and says nothing about
real reviews.
"""

import functools
import random

import pandas

ROWS = 1600
_ASPECTS = ["acting", "script", "story", "camera work", "score", "dialogue", "pacing", "cast", "ending", "editing",
            "lead performance", "production design", "humour", "opening scene", "sound", "villain", "finale"]  # fmt: skip
_KINDS = ["thriller", "comedy", "drama", "western", "documentary", "horror film", "romance", "war film", "musical",
          "science fiction film", "family film", "biopic", "heist film", "remake", "sequel", "debut feature"]  # fmt: skip
_GOOD = ["superb", "moving", "sharp", "a delight", "wonderful", "gripping", "honest", "beautifully done", "inventive",
         "first rate", "warm and funny", "a joy from start to finish", "memorable", "brilliant", "flawless"]  # fmt: skip
_BAD = ["dreadful", "wooden", "lifeless", "a mess", "painfully dull", "lazy", "clumsy", "badly done", "stale",
        "third rate", "loud and empty", "a chore from start to finish", "forgettable", "awful", "ridiculous"]  # fmt: skip
_OPENERS = ["I saw this {kind} on a rainy {day}.", "My {friend} picked this {kind} for our {day} evening.",
            "I had read a lot about this {kind} before I watched it.", "This {kind} has been on my list for {n} years.",
            "We were {n} people in the cinema for this {kind}.", "A {kind} set in a small town, {n} minutes long."]  # fmt: skip
_PLOTS = ["A {job} comes home and finds an old letter.", "Two sisters and a {job} inherit a house by the sea.",
          "A {job} has one night to find the missing money.", "The {job} at its centre trusts the wrong person.",
          "It follows a {job} through a long winter.", "A retired {job} is asked to do one last favour."]  # fmt: skip
_CLAIMS = ["The {aspect} is {word}.", "I found the {aspect} {word}.", "The {aspect} and the {other} are {word}.",
           "What stays with me is the {aspect}: {word}.", "Everyone talks about the {aspect}, and it is {word}."]  # fmt: skip
_DENIALS = ["The {aspect} is not {word} at all.", "Nobody could call the {aspect} {word}.",
            "I cannot say the {aspect} was {word}."]  # fmt: skip
_CONCESSIONS = ["The {aspect} may be {word}, but that changes little.", "Granted, the {aspect} is {word}."]
_VERDICTS = {
    "positive": ["I would see it again tomorrow.", "Highly recommended.", "Go and see it.", "{n} out of ten would be too low: a full ten.",
                 "One of the best I have seen this year.", "I left the cinema smiling."],
    "negative": ["I want those hours back.", "Avoid it.", "Save your money.", "We left before the end.",
                 "One of the worst I have seen this year.", "I kept looking at my watch."],
}  # fmt: skip
_FILL = {
    "day": ["Monday", "Friday", "Saturday", "Sunday"],
    "friend": ["brother", "neighbour", "flatmate", "aunt", "daughter"],
    "job": ["teacher", "nurse", "detective", "farmer", "pianist", "sailor", "lawyer", "baker", "pilot"],
    "n": ["three", "four", "five", "eight", "ninety", "a hundred"],
}


def make(rows: int = ROWS, seed: int = 0) -> pandas.DataFrame:
    """Return `rows` different reviews with columns `text` and `label` (negative or positive, half of each)."""
    return _generate(rows, seed).copy()


@functools.cache
def _generate(rows: int, seed: int) -> pandas.DataFrame:
    rng = random.Random(seed)
    texts: dict[str, str] = {}
    while len(texts) < rows:
        label = ("negative", "positive")[len(texts) % 2]
        texts.setdefault(_review(rng, label), label)
    return pandas.DataFrame({"text": list(texts), "label": list(texts.values())})


def _review(rng: random.Random, label: str) -> str:
    """Return a review: claims that agree with the label, some of them denials of the opposite, perhaps one concession."""
    agree, disagree = (_GOOD, _BAD) if label == "positive" else (_BAD, _GOOD)
    body = [_sentence(rng, _CLAIMS, agree) for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.4:
        body.append(_sentence(rng, _DENIALS, disagree))
    if rng.random() < 0.4:
        body.append(_sentence(rng, _CONCESSIONS, disagree))
    rng.shuffle(body)
    parts = [_sentence(rng, _OPENERS, agree), _sentence(rng, _PLOTS, agree), *body]
    if rng.random() < 0.6:
        parts.append(_sentence(rng, _VERDICTS[label], agree))
    return " ".join(parts)


def _sentence(rng: random.Random, templates: list[str], words: list[str]) -> str:
    aspect, other = rng.sample(_ASPECTS, 2)
    fill = {name: rng.choice(choices) for name, choices in _FILL.items()}
    return rng.choice(templates).format(
        aspect=aspect, other=other, word=rng.choice(words), kind=rng.choice(_KINDS), **fill
    )
