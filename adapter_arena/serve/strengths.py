"""The strength of each adapter, from the outcomes of duels."""

import math
from collections import Counter

import numpy
from scipy.optimize import minimize
from scipy.special import expit, log_expit

Outcomes = Counter[tuple[str, str, bool]]
"""Number of votes by winner, loser and whether it was a tie."""

_ELO_PER_LOG_ODDS = 400 / math.log(10)


def strengths(outcomes: Outcomes) -> dict[str, float]:
    """Return the maximum-likelihood Bradley-Terry strengths on the Elo scale; a tie counts as half a win each.

    Each adapter also has one tie against an opponent of strength 0, so that the strength of an adapter that never lost
    is finite. Bradley & Terry 1952.
    """
    names = sorted({name for winner, loser, _ in outcomes for name in (winner, loser)})
    if not names:
        return {}
    wins = _win_matrix(outcomes, names)

    def loss(strength: numpy.ndarray) -> tuple[float, numpy.ndarray]:
        """Return the negative log-likelihood and its gradient."""
        deficit = strength[None, :] - strength[:, None]  # of row i against column j
        likelihood = (wins * log_expit(-deficit)).sum() + (log_expit(strength) + log_expit(-strength)).sum() / 2
        surprise = wins * expit(deficit)
        gradient = expit(strength) - 0.5 + surprise.sum(axis=0) - surprise.sum(axis=1)
        return -likelihood, gradient

    log_odds = minimize(loss, numpy.zeros(len(names)), jac=True, method="L-BFGS-B").x
    return dict(zip(names, (_ELO_PER_LOG_ODDS * log_odds).tolist()))


def _win_matrix(outcomes: Outcomes, names: list[str]) -> numpy.ndarray:
    """Return the wins of each adapter (row) against each other one (column)."""
    position = {name: i for i, name in enumerate(names)}
    wins = numpy.zeros((len(names), len(names)))
    for (winner, loser, is_tie), count in outcomes.items():
        i = position[winner]
        j = position[loser]
        if is_tie:
            wins[i, j] += count / 2
            wins[j, i] += count / 2
        else:
            wins[i, j] += count
    return wins
