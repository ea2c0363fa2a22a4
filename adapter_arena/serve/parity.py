"""Compare an exported model's answers with those of the served adapter."""

import dataclasses
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification

from adapter_arena.adapters.store import Adapter
from adapter_arena.models import bases
from adapter_arena.serve.engine import Engine
from adapter_arena.serve.served import Served
from adapter_arena.texts import Text


@torch.inference_mode()
def largest_difference(folder: Path, adapter: Adapter, base: bases.Base, texts: list[Text]) -> float:
    """Return the largest difference between the scores of the exported model and the served adapter on these texts.

    Both get the token ids that the engine makes, because a plain tokenizer truncates long texts at their end.
    """
    engine = Engine(base, merged_mb=0)
    engine.add(adapter)
    served = engine.get(adapter.name)
    expected = served.scores(engine.logits(texts, adapter.name))
    rows = engine.encode(texts, adapter.name)
    types = engine.token_types(rows)
    engine.close()
    plain = dataclasses.replace(adapter, results=None, scale=None)  # the temperature and the scale are in the model
    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    logits = []
    for i, row in enumerate(rows):
        inputs = {"input_ids": torch.tensor([row.ids])}
        if types is not None:
            inputs["token_type_ids"] = torch.tensor([types[i]])
        logits.append(model(**inputs).logits[0])
    scores = Served(plain, None, None).scores(torch.stack(logits))
    return float((scores - expected).abs().max())
