"""From text to numbers: sentences, tokens, ids."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from compute.data.items import SEQUENCES, TEXT, TOKENS, Flow, Items, Spec, item_array
from compute.data.source import Key, Tensors
from compute.data.transform import InputTransform, Transform
from compute.data.vocabulary import Vocabulary
from compute.errors import InputError

# A sentence ends at . ! ? (with closing quotes or brackets) before white space and something that may begin one.
_SENTENCE_END = re.compile(r"""([.!?]["')\]]*)\s+(?=["'(\[]*(?:[^\W\da-z_]|\d))""")
_BLANK_LINE = re.compile(r"\n\s*\n")
_TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def sentence_split(text: str) -> list[str]:
    """The sentences of a text, by punctuation: they end at . ! or ? before white space and a capital or a digit.

    Blank lines end one, too. Abbreviations such as "Dr. Smith" are cut; use a trained splitter where that matters.
    """
    parts = []
    for paragraph in _BLANK_LINE.split(text):
        begin = 0
        for found in _SENTENCE_END.finditer(paragraph):
            parts.append(paragraph[begin : found.end(1)])
            begin = found.end()
        parts.append(paragraph[begin:])
    return [" ".join(part.split()) for part in parts if part.strip()]


def word_tokenize(text: str, lower: bool = True) -> list[str]:
    """Words, with their apostrophes, and single punctuation marks; in lower case by default."""
    return _TOKEN.findall(text.lower() if lower else text)


class tokenize(InputTransform):
    """Texts become lists of tokens.

    Args:
        tokenizer: text -> list of tokens; `str.split` for text that is tokenized already, `list` for characters.
    """

    def __init__(self, tokenizer: Callable[[str], list[str]] = word_tokenize) -> None:
        self.tokenizer = tokenizer

    def output_spec(self, spec: Spec) -> Spec:
        return Items(TOKENS) if _kind(spec, "tokenize", TEXT) else spec

    def change(self, x: Any, stream: Any) -> Any:
        return item_array(self.tokenizer(text) for text in x)


class to_ids(InputTransform):
    """Lists of tokens become sequences of their numbers in a vocabulary, int64.

    Args:
        begin, end: tokens to put around each list, such as "<s>" and "</s>"; they must be in the vocabulary.
    """

    def __init__(self, vocabulary: Vocabulary, begin: str | None = None, end: str | None = None) -> None:
        for token in (begin, end):
            if token is not None and token not in vocabulary:
                raise InputError(f"to_ids: {token!r} is not in the vocabulary; build it with specials=(..., {token!r})")
        self.vocabulary = vocabulary
        self.before, self.after = ([] if token is None else [token] for token in (begin, end))

    def output_spec(self, spec: Spec) -> Spec:
        return Items(SEQUENCES, "int64") if _kind(spec, "to_ids", TOKENS) else spec

    def change(self, x: Any, stream: Any) -> Any:
        return item_array(self.vocabulary.ids([*self.before, *tokens, *self.after]) for tokens in x)


class text_to_labeled_sentence(Transform):
    """Sequences of n + 1 ids become an input of the first n and a target of the last n: each one's next.

    Shorter than two ids there is nothing to learn: such a sequence becomes one with `filler` as its only input and its
    only target; make that the criterion's ignored label.
    """

    def __init__(self, filler: int = 0) -> None:
        self.filler = int(filler)

    def output_specs(self, inputs: Flow, targets: Flow) -> tuple[Flow, Flow]:
        if inputs != (Items(SEQUENCES, "int64"),) or targets:
            raise InputError("text_to_labeled_sentence takes ids without targets; put data.to_ids before it")
        return inputs, inputs

    def output_classes(self, classes: int | None) -> None:
        return None

    def __call__(self, x: Any, target: Tensors, key: Key, place: str) -> tuple[Tensors, Tensors]:
        filler = np.array([self.filler, self.filler], dtype=np.int64)
        long = [ids if len(ids) > 1 else filler for ids in x]
        return item_array(ids[:-1] for ids in long), item_array(ids[1:] for ids in long)


def _kind(spec: Spec, name: str, kind: str) -> bool:
    """True; raises InputError unless the spec is of items of that kind."""
    if not isinstance(spec, Items) or spec.kind != kind:
        before = {TEXT: "a source of texts such as data.text_lines(path)", TOKENS: "data.tokenize()"}[kind]
        raise InputError(f"{name} takes {Items(kind)}, the samples are {spec}; put {before} before it")
    return True
