"""Text, vocabularies, sequences, labels and language models."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compute import InputError, data
from compute.data.items import SEQUENCES, Items
from compute.spec import TensorSpec

KEY = (1, 5, 2)
TEXTS = ["The cat sat.", "The dog!", "A cat"]


def vocabulary() -> data.Vocabulary:
    return data.Vocabulary.build([data.word_tokenize(text) for text in TEXTS])


def test_sentences_and_words() -> None:
    assert data.sentence_split('He said: "Go." She went.') == ['He said: "Go."', "She went."]
    text = 'It rains. "Does it?" he asked! Version 2.5 came out... 3 days ago.\n\nnew paragraph\ngoes on'
    assert data.sentence_split(text) == [
        "It rains.", '"Does it?" he asked!', "Version 2.5 came out...", "3 days ago.", "new paragraph goes on",
    ]  # fmt: skip
    assert data.sentence_split(" \n ") == []
    assert data.word_tokenize("Don't stop, it’s 5 o'clock!") == ["don't", "stop", ",", "it’s", "5", "o'clock", "!"]
    assert data.word_tokenize("Äpfel A_b", lower=False) == ["Äpfel", "A_b"]


@settings(max_examples=100, deadline=None)
@given(st.text("aAÄ1_.!?\"')(’ \n\t-", max_size=40))
def test_no_character_is_lost(text: str) -> None:
    assert "".join(data.word_tokenize(text, lower=False)) == "".join(text.split())
    assert "".join("".join(data.sentence_split(text)).split()) == "".join(text.split())


def test_vocabulary_order_and_limits(tmp_path: Path) -> None:
    built = vocabulary()
    assert built.tokens == ("<pad>", "<unk>", "<s>", "</s>", "cat", "the", "!", ".", "a", "dog", "sat")
    np.testing.assert_array_equal(built.ids(["the", "bird", "cat"]), [5, 1, 4])
    assert built.words([5, 1, 4]) == ["the", "<unk>", "cat"]
    corpus = [["b", "a", "b"], ["c", "c", "<unk>"]]
    assert data.Vocabulary.build(corpus, min_count=2, specials=["<unk>"]).tokens == ("<unk>", "b", "c")
    assert data.Vocabulary.build(corpus, max_size=3, specials=["<unk>"]).tokens == ("<unk>", "b", "c")
    assert data.Vocabulary.build(reversed(corpus), specials=()).tokens == ("b", "c", "<unk>", "a")
    strict = data.Vocabulary(["x", "y"])
    with pytest.raises(InputError, match="'z' is not in the vocabulary, nor is '<unk>'"):
        strict.id("z")
    with pytest.raises(InputError, match=r"2 is not in 0\.\.1"):
        strict.words([2])
    for place in (str(tmp_path / "words"), f"memory://{tmp_path.name}/words"):
        built.save(place)
        assert data.Vocabulary.load(place).tokens == built.tokens
    assert pickle.loads(pickle.dumps(built)).ids(["cat"]) == [4]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=8))
def test_a_saved_vocabulary_is_read_back(tmp_path_factory: pytest.TempPathFactory, tokens: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "vocabulary.txt"
    encodable = not any("\ud800" <= letter <= "\udfff" for token in tokens for letter in token)
    if any(token.splitlines() != [token] for token in tokens) or not encodable:
        with pytest.raises((InputError, UnicodeEncodeError)):
            data.Vocabulary(tokens).save(path)
        return
    data.Vocabulary(tokens).save(path)
    assert data.Vocabulary.load(path).tokens == tuple(tokens)


@pytest.mark.parametrize(
    ("content", "message"), [(b"a\na\n", "'a' occurs twice"), (b"a\n\nb\n", "'' is no token"), (b"\xff", "not UTF-8")]
)
def test_damaged_vocabulary_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "words"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        data.Vocabulary.load(path)
    assert str(path) in str(error.value)
    with pytest.raises(InputError, match="none does not exist"):
        data.Vocabulary.load(tmp_path / "none")
    with pytest.raises(InputError, match="lists of tokens, not of texts"):
        data.Vocabulary.build(["text"])


def test_from_texts_to_tensors() -> None:
    words = vocabulary()
    dataset = (
        data.from_items(TEXTS, [0, 1, 0], classes=2) >> data.tokenize() >> data.to_ids(words, "<s>", "</s>")
        >> data.pad(8, with_lengths=True)
    )  # fmt: skip
    dataset.check()
    assert dataset.input_specs == (TensorSpec((8,), "int64"), TensorSpec((), "int64"))
    (ids, lengths), target = dataset.batch(np.array([1, 0]), KEY)
    np.testing.assert_array_equal(ids, [[2, 5, 9, 6, 3, 0], [2, 5, 4, 10, 7, 3]])
    np.testing.assert_array_equal(lengths, [5, 6])
    np.testing.assert_array_equal(target, [1, 0])
    assert ids.dtype == lengths.dtype == np.int64


def test_labeled_sentences() -> None:
    sequences = [[1, 2, 3], [4, 5], [6], []]
    dataset = data.from_items(sequences) >> data.text_to_labeled_sentence(filler=9) >> data.pad(5, 0, target_value=-1)
    dataset.check()
    assert dataset.input_specs == dataset.target_specs == (TensorSpec((5,), "int64"),)
    x, target = dataset.batch(np.arange(4), KEY)
    np.testing.assert_array_equal(x, [[1, 2], [4, 0], [9, 0], [9, 0]])
    np.testing.assert_array_equal(target, [[2, 3], [5, -1], [9, -1], [9, -1]])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(1, 99), max_size=9), min_size=1, max_size=6).filter(any), st.integers(1, 10),
       st.integers(1, 4), st.booleans(), st.sampled_from(["end", "start"]))  # fmt: skip
def test_padding_is_torch_s(rows: list[list[int]], length: int, multiple: int, longest: bool, truncate: str) -> None:
    dataset = data.from_items(rows) >> data.pad(length, 7, longest=longest, multiple=multiple, truncate=truncate)
    found, _ = dataset.batch(np.arange(len(rows)), KEY)
    cut = [torch.tensor(row[-length:] if truncate == "start" else row[:length], dtype=torch.int64) for row in rows]
    expected = torch.nn.utils.rnn.pad_sequence(cut, batch_first=True, padding_value=7).numpy()
    most = max(max(len(row) for row in rows), 1)
    size = min(-(-most // multiple) * multiple, length) if longest else length
    assert found.shape == (len(rows), size)  # type: ignore[union-attr]
    np.testing.assert_array_equal(found[:, : expected.shape[1]], expected)  # type: ignore[call-overload]
    assert (found[:, expected.shape[1] :] == 7).all()  # type: ignore[call-overload]


def test_padding_of_vectors_and_refusals() -> None:
    rows = [np.ones((2, 3)), np.full((1, 3), 2.0)]
    dataset = data.from_items(rows) >> data.pad(4, longest=False)
    assert dataset.input_specs == (TensorSpec((4, 3)),)
    x, _ = dataset.batch(np.arange(2), KEY)
    np.testing.assert_array_equal(x.sum(axis=(1, 2)), [6, 6])  # type: ignore[union-attr]
    assert data.from_items(rows).flow[0] == (Items(SEQUENCES, "float32", (3,)),)
    with pytest.raises(InputError, match=r"pad\(1\): a sequence of 2"):
        (data.from_items(rows) >> data.pad(1, truncate="error")).check()
    with pytest.raises(InputError, match="pad takes sequences, the samples are text"):
        _ = (data.from_items(TEXTS) >> data.pad(3)).flow
    with pytest.raises(InputError, match="tokenize takes text, the samples are lists of tokens"):
        _ = (data.from_items([["a"]]) >> data.tokenize()).flow
    with pytest.raises(InputError, match=r"sequences of any size, which no model takes; append data\.pad"):
        data.from_items(rows).check()
    with pytest.raises(InputError, match="not a mixture"):
        data.from_items(["a", [1]])
    with pytest.raises(InputError, match="'<x>' is not in the vocabulary"):
        data.to_ids(vocabulary(), begin="<x>")
    for wrong in ({"length": 0}, {"length": 2, "multiple": 0}, {"length": 2, "truncate": "middle"}):
        with pytest.raises(InputError, match="pad: "):
            data.pad(**wrong)  # type: ignore[arg-type]


def test_labels_become_other_targets() -> None:
    x = np.zeros((4, 2), np.float32)
    every = np.arange(4)
    dataset = data.from_arrays(x, np.array([1, 2, 3, 1]), classes=4) >> data.relabel(-1)
    assert dataset.classes == 3
    np.testing.assert_array_equal(dataset.batch(every, KEY)[1], [0, 1, 2, 0])
    table = data.from_arrays(x, np.array([1, 2, 3, 1]), classes=4) >> data.relabel({1: 1, 2: 0, 3: 1})
    assert table.classes == 2
    np.testing.assert_array_equal(table.batch(every, KEY)[1], [1, 0, 1, 1])
    hot = dataset >> data.one_hot(3, on=0.9, off=0.05)
    assert hot.target_specs == (TensorSpec((3,)),)
    np.testing.assert_allclose(hot.batch(every, KEY)[1], 0.05 + 0.85 * np.eye(3)[[0, 1, 2, 0]], rtol=1e-6)
    with pytest.raises(InputError, match=r"one_hot\(2\): found labels 0\.\.2"):
        (dataset >> data.one_hot(2)).batch(every, KEY)
    with pytest.raises(InputError, match="relabel: no new label for 3"):
        (data.from_arrays(x, np.array([1, 2, 3, 1])) >> data.relabel({1: 0, 2: 1})).batch(every, KEY)
    with pytest.raises(InputError, match="one_hot takes a label"):
        _ = (data.from_arrays(x) >> data.one_hot(2)).flow
    same = data.from_arrays(x + 3, np.arange(4)) >> data.input_as_target() >> data.to_float(2)
    x_found, target = same.batch(every, KEY)
    np.testing.assert_array_equal(target, x + 3)
    np.testing.assert_array_equal(x_found, 2 * (x + 3))


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(("tokens", "length", "windows"), [(11, 3, 3), (10, 3, 3), (9, 3, 2), (4, 3, 1), (2, 1, 1)])
def test_language_model_windows(tmp_path: Path, stored: bool, tokens: int, length: int, windows: int) -> None:
    stream = np.arange(100, 100 + tokens)
    if stored:
        np.save(tmp_path / "t.npy", stream.astype(np.uint16))
    dataset = data.language_model(tmp_path / "t.npy" if stored else stream, length)
    dataset.check()
    assert len(dataset) == windows
    x, target = dataset.batch(np.arange(windows)[::-1], KEY)
    expected = stream[: windows * length].reshape(windows, length)[::-1]
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(target, expected + 1)
    assert dataset.input_specs == dataset.target_specs == (TensorSpec((length,), "int64"),)


def test_language_models_of_too_little(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fewer than 4 tokens"):
        data.language_model([1, 2, 3], 3).check()
    with pytest.raises(InputError, match="token ids"):
        data.language_model(np.zeros((2, 2), int), 3)
    np.save(tmp_path / "f.npy", np.zeros(9))
    with pytest.raises(InputError, match=r"f\.npy holds float64"):
        data.language_model(tmp_path / "f.npy", 3).check()
