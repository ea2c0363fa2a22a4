"""Class weights: each class contributes equally to the training loss, however few rows it has."""

import numpy
import torch
from torch.nn import functional

from adapter_arena.data.load import Splits
from adapter_arena.errors import RecipeError
from adapter_arena.recipe import Recipe

_MAX_SHOWN = 10


def class_weights(recipe: Recipe, splits: Splits) -> numpy.ndarray | None:
    """Return the weight of each class in the training loss, shape (classes,); None if the recipe sets no weights.

    A class with n_c of the n training rows has the weight n / (k n_c), where k is the number of classes that have rows,
    so that the mean weight of a row is 1. A class without rows has the weight 1. Raises RecipeError if the rows do not
    have one class each.
    """
    if recipe.class_weights == "none":
        return None
    labels = numpy.asarray(splits.train.labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise RecipeError(
            "class_weights balanced needs texts with one class each, and these have numbers or several labels: leave "
            "--class-weights out."
        )
    rows = numpy.bincount(labels, minlength=len(splits.labels))
    n_present = numpy.count_nonzero(rows)
    balanced = len(labels) / (n_present * numpy.maximum(rows, 1))
    return numpy.where(rows > 0, balanced, 1.0)


def describe(recipe: Recipe, splits: Splits) -> str | None:
    """Return a line with the class weights for the user, the largest first; None without them. Raises RecipeError."""
    weights = class_weights(recipe, splits)
    if weights is None:
        return None
    largest_first = numpy.argsort(-weights, kind="stable")[:_MAX_SHOWN]
    parts = [f"{splits.labels[index]!r} {weights[index]:.3g}" for index in largest_first]
    if len(weights) > _MAX_SHOWN:
        parts.append("…")
    return f"class weights: {', '.join(parts)}"


def weighting_term(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Return what weighting adds to the mean cross-entropy of a batch: the mean of (weight - 1) times a row's loss.

    Shapes: (rows, classes), (rows,) and (classes,). It is added to the model's own loss, which may include a penalty of
    the method. The mean is over rows, not over weights, so that a batch can be computed in parts.
    """
    losses = functional.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=label_smoothing)
    return ((weights[labels] - 1) * losses).mean()
