"""Base models, fine-tuning methods, and the fast paths on CPU."""

from adapter_arena.models import quick_import  # noqa: F401  before any module of the package imports bitsandbytes
