"""Old names of merged.py and models/fast/merging.py."""

from adapter_arena.models.fast.merging import widen  # noqa: F401  # alias
from adapter_arena.serve.merged import MergedCache, budget_mb  # noqa: F401  # alias
