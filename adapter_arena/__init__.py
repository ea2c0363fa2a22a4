"""Adapter Arena: one 4-bit base model, every fine-tuning method as an adapter on it."""

__version__ = "0.1.0"
