"""Idx files and MNIST folders: what is read, and one clear line for each fault."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute import InputError, data
from compute.data import idx

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([7, 0, 9], dtype=np.uint8)


def encode(array: np.ndarray) -> bytes:
    """The idx file of a uint8 array."""
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny MNIST folder: gzipped training files, plain test files."""
    for stem, array in (("train-images-idx3", IMAGES), ("train-labels-idx1", LABELS)):
        (tmp_path / f"{stem}-ubyte.gz").write_bytes(gzip.compress(encode(array), mtime=0))
    for stem, array in (("t10k-images-idx3", IMAGES[:2]), ("t10k-labels-idx1", LABELS[:2])):
        (tmp_path / f"{stem}-ubyte").write_bytes(encode(array))
    return tmp_path


def one_line(error: pytest.ExceptionInfo[InputError], path: Path) -> str:
    """The error's text, after asserting that it is one line naming the file."""
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def read_or_refuse(path: Path, magic: int) -> np.ndarray | None:
    """The file's array, or None after asserting that it was refused in one line that names it."""
    try:
        return idx.read(path, magic)
    except InputError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert str(path) in refusal
    return None


@pytest.mark.parametrize("train", [True, False])
def test_reads_gzipped_and_plain(folder: Path, train: bool) -> None:
    dataset = data.mnist(folder, train=train)
    count = 3 if train else 2
    assert len(dataset) == count
    assert dataset.sample_shape == (1, 4, 5)
    dataset.check()
    x, target = dataset.batch(np.array([1, 0, 1]), (1, 1, 0))
    np.testing.assert_array_equal(x, IMAGES[[1, 0, 1], None].astype(np.float32))
    np.testing.assert_array_equal(target, [0, 7, 0])
    assert (x.dtype, target.dtype) == (np.float32, np.int64)
    assert len(dataset) == count
    assert dataset.sample_shape == (1, 4, 5)


def test_pickles_names_not_data(folder: Path) -> None:
    dataset = data.mnist(folder) >> data.normalize(0.3, 0.4)
    before = pickle.dumps(dataset)
    expected, _ = dataset.batch(np.arange(3), (1, 1, 0))
    after = pickle.dumps(dataset)
    assert before == after
    assert len(before) < 1000
    np.testing.assert_array_equal(pickle.loads(after).batch(np.arange(3), (1, 1, 0))[0], expected)


def test_a_relative_folder_means_the_script_s(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(folder.parent)
    dataset = data.mnist(folder.name)
    monkeypatch.chdir("/")
    assert len(dataset) == 3


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("array", "magic"), [(IMAGES, idx.IMAGES_MAGIC), (LABELS, idx.LABELS_MAGIC)])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, packed: bool, array: np.ndarray, magic: int) -> None:
    whole = gzip.compress(encode(array), mtime=0) if packed else encode(array)
    path = tmp_path / ("file.gz" if packed else "file")
    path.write_bytes(whole)
    np.testing.assert_array_equal(idx.read(path, magic), array)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        for look in (idx.read, idx.check):
            with pytest.raises(InputError) as error:
                look(path, magic)
            assert "cut short" in one_line(error, path)
            assert "fetch the file again" in str(error.value)


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255), packed=st.booleans())
def test_a_changed_byte_never_passes_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, packed: bool
) -> None:
    """In a gzip file the checksum finds it; in a plain one, whatever is read has the header's shape."""
    whole = bytearray(gzip.compress(encode(IMAGES), mtime=0) if packed else encode(IMAGES))
    position %= len(whole)
    whole[position] = value
    path = tmp_path_factory.getbasetemp() / ("mutated.gz" if packed else "mutated")
    path.write_bytes(whole)
    found = read_or_refuse(path, idx.IMAGES_MAGIC)
    if found is not None:
        assert encode(found) == (encode(IMAGES) if packed else bytes(whole))


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=60), packed=st.booleans())
def test_arbitrary_bytes_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, packed: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / ("random.gz" if packed else "random")
    path.write_bytes(gzip.compress(content) if packed else content)
    found = read_or_refuse(path, idx.LABELS_MAGIC)
    assert found is None or encode(found) == content


def test_too_much_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(encode(LABELS) + b"x")
    with pytest.raises(InputError, match="more than the 3 bytes") as error:
        idx.read(path, idx.LABELS_MAGIC)
    one_line(error, path)


def test_wrong_magic_says_what_was_found(folder: Path) -> None:
    path = folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(encode(IMAGES)))
    with pytest.raises(InputError) as error:
        data.mnist(folder).check()
    assert "its magic is 2051, the magic of idx images, expected 2049" in one_line(error, path)
    path.write_bytes(gzip.compress(b"PK\x03\x04 and so on"))
    with pytest.raises(InputError, match="magic is 1347093252, expected 2049"):
        data.mnist(folder).check()


def test_missing_folder_and_files(folder: Path) -> None:
    with pytest.raises(InputError, match="does not exist") as error:
        data.mnist(folder / "nowhere").check()
    one_line(error, folder / "nowhere")
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match=r"neither train-labels-idx1-ubyte nor train-labels-idx1-ubyte\.gz") as error:
        data.mnist(folder).check()
    one_line(error, folder)


def test_not_gzip_though_named_so(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(encode(IMAGES))
    with pytest.raises(InputError, match="damaged gzip file") as error:
        data.mnist(folder).check()
    one_line(error, path)


def test_counts_must_match_and_labels_be_in_range(folder: Path) -> None:
    path = folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(encode(LABELS[:2])))
    for use in (data.mnist(folder).check, lambda: data.mnist(folder).batch(np.arange(1), (0, 0, 0))):
        with pytest.raises(InputError, match=r"holds 2 labels, but .* 3 images") as error:
            use()
        one_line(error, path)
    path.write_bytes(gzip.compress(encode(np.array([1, 10, 2], dtype=np.uint8))))
    with pytest.raises(InputError, match=r"holds label 10, expected 0\.\.9") as error:
        data.mnist(folder).check()
    one_line(error, path)


def test_an_unreadable_file_is_one_line(folder: Path) -> None:
    path = folder / "t10k-images-idx3-ubyte"
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(InputError) as error:
        idx.read(path, idx.IMAGES_MAGIC)
    one_line(error, path)
