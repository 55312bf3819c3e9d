"""Numbers for words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from compute.data import files
from compute.errors import InputError

PAD, UNKNOWN, BEGIN, END = "<pad>", "<unk>", "<s>", "</s>"
SPECIALS = (PAD, UNKNOWN, BEGIN, END)


class Vocabulary:
    """Tokens and their numbers, 0..len-1 in the order given (BigDL's Dictionary). It travels with the job.

    Args:
        tokens: all different, none empty or with a line break.
        unknown: the token that stands for all others; if it is not among the tokens, others are an error.
    """

    def __init__(self, tokens: Iterable[str], unknown: str = UNKNOWN) -> None:
        self.tokens: tuple[str, ...] = tuple(tokens)
        self.unknown = unknown
        self._ids = {token: number for number, token in enumerate(self.tokens)}
        if len(self._ids) != len(self.tokens):
            twice = next(token for token, count in Counter(self.tokens).items() if count > 1)
            raise InputError(f"vocabulary: {twice!r} occurs twice; name each token once")
        for token in self.tokens:
            if not isinstance(token, str) or not token or token.splitlines() != [token]:
                raise InputError(f"vocabulary: {token!r} is no token; tokens are texts of one line")

    @classmethod
    def build(
        cls,
        corpus: Iterable[Sequence[str]],
        max_size: int | None = None,
        min_count: int = 1,
        specials: Sequence[str] = SPECIALS,
    ) -> Vocabulary:
        """The vocabulary of a corpus of token lists: the special tokens, then the others, most frequent first.

        Equally frequent ones are in the order of their code points, so the numbers depend on nothing but the corpus.

        Args:
            max_size: tokens at the most, the special ones included.
            min_count: tokens that occur less often are left out.
        """
        counts: Counter[str] = Counter()
        for tokens in corpus:
            if isinstance(tokens, str):
                raise InputError("vocabulary: a corpus is made of lists of tokens, not of texts; tokenize them first")
            counts.update(tokens)
        special = set(specials)
        known = [(-count, token) for token, count in counts.items() if count >= min_count and token not in special]
        listed = [*specials, *(token for _, token in sorted(known))]
        return cls(listed[: len(listed) if max_size is None else max(max_size, len(specials))])

    @classmethod
    def load(cls, path: files.PathLike, unknown: str = UNKNOWN) -> Vocabulary:
        """From a file that `save` wrote: UTF-8, one token per line, the line's number from 0 its id.

        Raises:
            InputError: the file cannot be read, is not UTF-8, or has an empty line or a token twice.
        """
        name = files.locate(path)
        try:
            lines = files.read_bytes(name).decode().split("\n")
            return cls(lines[:-1] if lines[-1] == "" else lines, unknown)
        except UnicodeDecodeError as error:
            raise InputError(f"{name} is not UTF-8 ({error.reason}); convert it") from None
        except InputError as error:
            raise InputError(f"{name}: {error}") if str(error).startswith("vocabulary") else error from None

    def save(self, path: files.PathLike) -> None:
        """Writes the tokens to a path or URL, one per line."""
        name = files.locate(path)
        data = "".join(f"{token}\n" for token in self.tokens).encode()
        with files.errors_of(name):
            if files.is_url(name):
                system, place = files.filesystem(name)
                system.pipe_file(place, data)
            else:
                with open(name, "wb") as file:
                    file.write(data)

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: str) -> bool:
        return token in self._ids

    def id(self, token: str) -> int:
        """The token's number, or that of the unknown token.

        Raises:
            InputError: there is neither.
        """
        number = self._ids.get(token)
        if number is None:
            number = self._ids.get(self.unknown)
        if number is None:
            raise InputError(f"{token!r} is not in the vocabulary, nor is {self.unknown!r}; add one of them")
        return number

    def ids(self, tokens: Iterable[str]) -> NDArray[np.int64]:
        """Numbers of tokens, int64 (n,)."""
        return np.array([self.id(token) for token in tokens], dtype=np.int64)

    def words(self, ids: Iterable[int]) -> list[str]:
        """Tokens of numbers. Raises InputError if one is out of range."""
        listed = [int(number) for number in ids]
        for number in listed:
            if not 0 <= number < len(self.tokens):
                raise InputError(f"vocabulary: {number} is not in 0..{len(self.tokens) - 1}")
        return [self.tokens[number] for number in listed]
