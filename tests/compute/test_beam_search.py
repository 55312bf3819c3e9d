"""Beam search against trying every sequence, and against a plain search in Python."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from compute import InputError, nn
from compute.nn.beam_search import length_penalty

END = 0


class Model:
    """Random log-probabilities of the next token, by all tokens before it; carries a checksum of them as its state."""

    def __init__(self, vocabulary: int, seed: int) -> None:
        self.vocabulary, self.seed = vocabulary, seed

    def next(self, tokens: tuple[int, ...]) -> np.ndarray:
        logits = np.random.default_rng([self.seed, *tokens]).standard_normal(self.vocabulary)
        return logits - np.log(np.exp(logits).sum())

    def step(self, tokens: Any, states: Any) -> Any:
        for row, total in zip(tokens, states[0] if states else tokens[:, :-1].sum(axis=1), strict=True):
            assert total == row[:-1].sum()  # states follow their sequences
        after = tuple(state + tokens[:, -1] for state in states)
        return np.array([self.next(tuple(int(t) for t in row)) for row in tokens]), after

    def score(self, first: int, sequence: tuple[int, ...], alpha: float) -> float:
        places = range(len(sequence))
        total = sum(self.next((first, *sequence[:t]))[sequence[t]] for t in places)
        return float(total / length_penalty(len(sequence), alpha))


def ended(vocabulary: int, max_length: int) -> list[tuple[int, ...]]:
    """All sequences that end."""
    others = range(1, vocabulary)
    return [(*body, END) for t in range(max_length) for body in itertools.product(others, repeat=t)]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize(("vocabulary", "max_length"), [(2, 5), (3, 4), (4, 3), (5, 1)])
def test_a_wide_beam_finds_the_best_of_all(vocabulary: int, max_length: int, alpha: float) -> None:
    model = Model(vocabulary, 1)
    first = np.array([1, vocabulary - 1, 0])
    beam_size = vocabulary**max_length
    states = (np.zeros(3, dtype=np.int64),)
    found = nn.beam_search(
        model.step, first, beam_size=beam_size, max_length=max_length, end_id=END, alpha=alpha, states=states
    )
    every = ended(vocabulary, max_length)
    for sample, start in enumerate(first):
        expected = sorted((model.score(int(start), s, alpha) for s in every), reverse=True)
        np.testing.assert_allclose(found.scores[sample, : len(every)], expected, rtol=1e-12)
        assert (found.scores[sample, len(every) :] == -np.inf).all()
        for tokens, score in zip(found.tokens[sample], found.scores[sample, : len(every)], strict=False):
            body = tuple(int(t) for t in tokens)
            body = body[: body.index(END) + 1]
            assert model.score(int(start), body, alpha) == pytest.approx(score, rel=1e-12)
            assert (tokens[len(body) :] == END).all()


def plain_search(model: Model, first: int, beam_size: int, max_length: int, alpha: float) -> list[float]:
    """Scores of what a beam search without any shortcut finds for one sample."""
    alive: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    done: list[float] = []
    for length in range(1, max_length + 1):
        grown = [
            (log + model.next((first, *body))[token], (*body, token))
            for log, body in alive
            for token in range(model.vocabulary)
        ]
        grown = sorted(grown, reverse=True)[: 2 * beam_size]
        done += [log / length_penalty(length, alpha) for log, body in grown if body[-1] == END]
        alive = [(log, body) for log, body in grown if body[-1] != END][:beam_size]
    if not done:
        done = [log / length_penalty(max_length, alpha) for log, _ in alive]
    return sorted(done, reverse=True)[:beam_size]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("beam_size", [1, 2, 5])
def test_narrow_beams(beam_size: int, alpha: float, seed: int) -> None:
    model = Model(7, seed)
    first = np.arange(4) % 7
    found = nn.beam_search(model.step, first, beam_size=beam_size, max_length=8, end_id=END, alpha=alpha)
    assert found.tokens.shape == (4, beam_size, 8)
    for sample, start in enumerate(first):
        expected = plain_search(model, int(start), beam_size, 8, alpha)
        np.testing.assert_allclose(found.scores[sample, : len(expected)], expected, rtol=1e-12)


def test_sequences_without_an_end_are_given_where_nothing_else_is() -> None:
    def step(tokens: Any, states: Any) -> Any:
        logs = np.array([[-np.inf, np.log(0.6), np.log(0.4)]])
        return np.repeat(logs, len(tokens), axis=0), states

    found = nn.beam_search(step, np.array([1]), beam_size=2, max_length=3, end_id=END)
    assert found.tokens[0, 0].tolist() == [1, 1, 1]
    assert found.scores[0, 0] == pytest.approx(3 * np.log(0.6))


def test_wrong_arguments() -> None:
    step = Model(3, 1).step
    for options, message in (
        ({"beam_size": 0}, "beam_size must be"),
        ({"max_length": 0}, "max_length must be"),
        ({"alpha": -1.0}, "alpha must be"),
        ({"end_id": 3}, "end_id 3 is not in the vocabulary 0..2"),
    ):
        arguments: dict[str, Any] = {"beam_size": 2, "max_length": 2, "end_id": 0} | options
        with pytest.raises(InputError, match=message):
            nn.beam_search(step, np.array([1]), **arguments)
