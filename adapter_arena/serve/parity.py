"""Whether an exported model answers as the served adapter does."""

from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification

from adapter_arena.adapters.store import Adapter
from adapter_arena.models import bases
from adapter_arena.serve.engine import Engine


@torch.inference_mode()
def largest_difference(folder: Path, adapter: Adapter, base: bases.Base, texts: list[str]) -> float:
    """The largest difference of probability between the exported model and the served adapter on these texts.

    Both read the ids that the engine reads, since a plain tokenizer cuts long texts at their end.
    """
    engine = Engine(base, hot_mb=0)
    engine.add(adapter)
    served = engine.find(adapter.name)
    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    wanted = served.probabilities(engine.logits(texts, adapter.name))
    found = [model(input_ids=torch.tensor([row.ids])).logits[0] for row in engine.encode(texts, adapter.name)]
    engine.close()
    return float((torch.stack(found).softmax(-1) - wanted).abs().max())
