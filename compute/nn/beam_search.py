"""Beam search over sequences of tokens, for inference (BigDL's SequenceBeamSearch)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.module import positive

Ids = NDArray[np.int64]
States = tuple[NDArray[Any], ...]
Step = Callable[[Ids, States], tuple[NDArray[Any], States]]

NEVER = -np.inf


class Beams(NamedTuple):
    """What was found, the best first.

    Attributes:
        tokens: int64 (n, beam_size, max_length), each sequence up to its end, `end_id` behind.
        scores: float64 (n, beam_size): log-probability / length penalty; -inf where fewer sequences were found.
    """

    tokens: Ids
    scores: NDArray[np.float64]


def length_penalty(length: int, alpha: float) -> float:
    """((5 + length) / 6) ^ alpha (Wu et al., Google's Neural Machine Translation System, 2016)."""
    return float(((5.0 + length) / 6.0) ** alpha)


def beam_search(
    step: Step,
    first: Ids,
    *,
    beam_size: int,
    max_length: int,
    end_id: int,
    alpha: float = 0.0,
    states: States = (),
) -> Beams:
    """The likeliest sequences of tokens that a model continues with, kept to `beam_size` at each step.

    Args:
        step: (tokens int64 (rows, t), states) to (log-probabilities of the next token (rows, vocabulary), states). The
            tokens begin with the first one; rows are sequences, `beam_size` for each sample.
        first: the token that each sample begins with, int64 (n,).
        max_length: how many tokens are found at the most, the end included. Sequences that have no end by then are
            given only for samples of which no sequence has one.
        end_id: the token that ends a sequence.
        alpha: sequences are compared by log-probability / ((5 + length) / 6)^alpha; 0 for no correction of length.
        states: what `step` carries from step to step, arrays with the n samples in front; may be none.

    Raises:
        InputError: an argument is out of range.
    """
    positive("beam_search", beam_size=beam_size, max_length=max_length)
    if not 0 <= alpha < np.inf:
        raise InputError(f"beam_search: alpha must be a number of at least 0, got {alpha!r}")
    first = np.asarray(first, dtype=np.int64)
    n = len(first)
    tokens = np.repeat(first, beam_size).reshape(n, beam_size, 1)
    states = tuple(np.repeat(state, beam_size, axis=0) for state in states)
    # In the beginning all of a sample's sequences are the same: only one counts.
    logs = np.full((n, beam_size), NEVER)
    logs[:, 0] = 0.0
    done = Beams(np.full((n, beam_size, max_length), end_id, dtype=np.int64), np.full((n, beam_size), NEVER))
    samples = np.arange(n)[:, None]
    for length in range(1, max_length + 1):
        probabilities, states = step(tokens.reshape(n * beam_size, length), states)
        vocabulary = probabilities.shape[1]
        if not 0 <= end_id < vocabulary:
            raise InputError(f"beam_search: end_id {end_id} is not in the vocabulary 0..{vocabulary - 1}")
        grown = (logs[:, :, None] + probabilities.reshape(n, beam_size, vocabulary)).reshape(n, -1)
        # Of twice as many, at least beam_size do not end now: each sequence has one end.
        best = np.argsort(-grown, axis=1, kind="stable")[:, : 2 * beam_size]
        parents, following = np.divmod(best, vocabulary)
        found = grown[samples, best]
        longer = np.concatenate([tokens[samples, parents], following[:, :, None]], axis=2)
        ends = following == end_id
        done = _merge(done, longer[:, :, 1:], np.where(ends, found / length_penalty(length, alpha), NEVER), end_id)
        alive = np.argsort(-np.where(ends, NEVER, found), axis=1, kind="stable")[:, :beam_size]
        logs = np.where(ends, NEVER, found)[samples, alive]
        tokens = longer[samples, alive]
        rows = (samples * beam_size + parents[samples, alive]).ravel()
        states = tuple(state[rows] for state in states)
        # Log-probabilities only fall, so no sequence can get better than this.
        if (done.scores[:, -1] >= logs[:, 0] / length_penalty(max_length, alpha)).all():
            break
    unended = (done.scores[:, :1] == NEVER) & (logs > NEVER)
    return _merge(done, tokens[:, :, 1:], np.where(unended, logs / length_penalty(max_length, alpha), NEVER), end_id)


def _merge(done: Beams, tokens: Ids, scores: NDArray[np.float64], end_id: int) -> Beams:
    """The best of what is done and of these sequences, int64 (n, count, length)."""
    beam_size = done.scores.shape[1]
    end = np.full((*tokens.shape[:2], done.tokens.shape[2] - tokens.shape[2]), end_id)
    every = np.concatenate([done.tokens, np.concatenate([tokens, end], axis=2)], axis=1)
    all_scores = np.concatenate([done.scores, scores], axis=1)
    best = np.argsort(-all_scores, axis=1, kind="stable")[:, :beam_size]
    samples = np.arange(len(best))[:, None]
    return Beams(every[samples, best], all_scores[samples, best])
