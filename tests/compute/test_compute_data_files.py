"""Readers of tables, arrays, folders and lines: what is read, by path and URL, and one clear line for each fault."""

from __future__ import annotations

import csv as stdlib_csv
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from compute import InputError, data
from compute.data.items import IMAGES, SEQUENCES, TEXT, Items
from compute.data.lines import LineFile
from compute.spec import TensorSpec, as_arrays
from tests.data_files import FASHION_MNIST, write_cifar

KEY = (1, 5, 2)
ALL = np.array([2, 0, 1], dtype=np.int64)
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\ufeff\0"), max_size=6)


@pytest.fixture(params=["path", "url"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """How files are named: by path, or by memory:// URL after a copy there."""
    system = fsspec.filesystem("memory")

    def name(path: Path) -> str:
        if request.param == "path":
            return str(path)
        target = f"/{tmp_path.name}/{path.name}"
        for file in [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]:
            system.pipe_file(target if file == path else f"{target}/{file.relative_to(path)}", file.read_bytes())
        return f"memory:/{target}"

    yield name
    if system.exists(f"/{tmp_path.name}"):
        system.rm(f"/{tmp_path.name}", recursive=True)


def refused(use: Callable[[], object], *words: str) -> str:
    """Asserts that `use` raises an InputError of one line with all these words, and returns it."""
    with pytest.raises(InputError) as error:
        use()
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text
    return text


def same_after_pickling(dataset: data.Dataset) -> None:
    """Pickles small, before and after use, and gives the same batch afterwards."""
    expected = dataset.batch(ALL, KEY)
    packed = pickle.dumps(dataset)
    assert len(packed) < 3000
    for found, wanted in zip(pickle.loads(packed).batch(ALL, KEY), expected, strict=True):
        for one, other in zip(as_arrays(found), as_arrays(wanted), strict=True):
            np.testing.assert_array_equal(one, other)


# --- CIFAR -----------------------------------------------------------------------------------------------------------


def cifar_records(count: int, labels: int, seed: int = 0) -> np.ndarray:
    """Random records, uint8 (count, labels + 3072), with labels below 10."""
    records = np.random.default_rng(seed).integers(0, 256, (count, labels + 3072), dtype=np.uint8)
    records[:, :labels] %= 10
    return records


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar"
    folder.mkdir()
    for number in range(1, 6):
        (folder / f"data_batch_{number}.bin").write_bytes(cifar_records(number, 1, number).tobytes())
    (folder / "test_batch.bin").write_bytes(cifar_records(3, 1).tobytes())
    return folder


def test_cifar10_reads_records_of_all_files(cifar: Path, place: Callable[[Path], str]) -> None:
    dataset = data.cifar10(place(cifar))
    dataset.check()
    records = np.concatenate([cifar_records(number, 1, number) for number in range(1, 6)])
    assert len(dataset) == 15
    assert (dataset.classes, dataset.sample_shape) == (10, (3, 32, 32))
    indices = np.array([14, 0, 7, 7, 1, 2, 3], dtype=np.int64)
    x, target = dataset.batch(indices, KEY)
    np.testing.assert_array_equal(x, records[indices, 1:].reshape(-1, 3, 32, 32).astype(np.float32))
    np.testing.assert_array_equal(target, records[indices, 0])
    bgr, _ = (dataset >> data.bgr()).batch(indices, KEY)
    np.testing.assert_array_equal(bgr, x[:, ::-1])  # type: ignore[call-overload]
    assert len(data.cifar10(place(cifar), train=False)) == 3
    same_after_pickling(dataset)
    refused(lambda: dataset.batch(np.array([15]), KEY), "samples 0..14")
    refused(lambda: dataset.batch(np.array([-1]), KEY), "samples 0..14")


def test_cifar100_has_two_labels(tmp_path: Path) -> None:
    inner = tmp_path / "cifar-100-binary"  # as the archive unpacks
    inner.mkdir()
    records = cifar_records(4, 2)
    (inner / "train.bin").write_bytes(records.tobytes())
    for coarse, column, classes in ((False, 1, 100), (True, 0, 20)):
        dataset = data.cifar100(tmp_path, coarse=coarse)
        dataset.check()
        x, target = dataset.batch(ALL, KEY)
        assert dataset.classes == classes
        np.testing.assert_array_equal(target, records[ALL, column])
        np.testing.assert_array_equal(x, records[ALL, 2:].reshape(-1, 3, 32, 32))
    records[2, 0] = 20
    (inner / "train.bin").write_bytes(records.tobytes())
    refused(data.cifar100(tmp_path).check, "train.bin, record 2: label 20, expected 0..19")


@pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_real_images_in_cifar_format(tmp_path: Path) -> None:
    write_cifar(tmp_path, train=50, test=10)
    dataset = data.cifar10(tmp_path)
    dataset.check()
    indices = np.arange(50, dtype=np.int64)
    x, target = dataset.batch(indices, KEY)
    mnist = data.mnist(FASHION_MNIST) >> data.pad_image(2)
    expected, labels = mnist.batch(indices, KEY)
    for channel in range(3):
        np.testing.assert_array_equal(x[:, channel : channel + 1], expected)  # type: ignore[call-overload]
    np.testing.assert_array_equal(target, labels)


def test_cut_and_mislabelled_cifar_files(cifar: Path) -> None:
    path = cifar / "data_batch_3.bin"
    whole = path.read_bytes()
    for length in (0, 1, 2, 3072, 3074, 2 * 3073 - 1, 3 * 3073 - 1, 3 * 3073 + 1):
        path.write_bytes(whole[:length] if length < len(whole) else whole + b"x")
        refused(data.cifar10(cifar).check, str(path), f"record {length // 3073} has {length % 3073}")
    wrong = bytearray(whole)
    wrong[2 * 3073] = 10
    path.write_bytes(wrong)
    dataset = data.cifar10(cifar)
    refused(dataset.check, f"{path}, record 2: label 10, expected 0..9")
    refused(lambda: dataset.batch(np.array([0, 5]), KEY), f"{path}, record 2: label 10")
    dataset.batch(np.array([0, 4]), KEY)  # what a lease does not need is not looked at
    path.write_bytes(whole)
    dataset = data.cifar10(cifar)
    assert len(dataset) == 15
    path.write_bytes(whole[: 2 * 3073 + 5])  # cut while in use: an error, not SIGBUS
    refused(lambda: dataset.batch(np.array([5]), KEY), str(path), "ends within record 2")
    path.unlink()
    refused(data.cifar10(cifar).check, f"{path} does not exist")
    refused(data.cifar10(cifar / "no").check, "no does not exist")


# --- npy and npz -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("u1", "float32"),
        ("<f8", "float32"),
        (">f4", "float32"),
        ("<i4", "int64"),
        (">i8", "int64"),
        ("?", "float32"),
        ("<i2", "float32"),
    ],
)
def test_npy_reads_rows(tmp_path: Path, place: Callable[[Path], str], dtype: str, expected: str) -> None:
    x = np.random.default_rng(0).integers(0, 2, (5, 2, 3)).astype(dtype)
    y = np.arange(5, dtype=np.uint8)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    dataset = data.npy(place(tmp_path / "x.npy"), place(tmp_path / "y.npy"), classes=5)
    dataset.check()
    assert dataset.input_specs == (TensorSpec((2, 3), expected),)
    assert dataset.target_specs == (TensorSpec((), "int64"),)
    found, target = dataset.batch(ALL, KEY)
    np.testing.assert_array_equal(found, x[ALL])
    np.testing.assert_array_equal(target, y[ALL])
    assert (found.dtype, target.dtype) == (np.dtype(expected), np.int64)  # type: ignore[union-attr]
    same_after_pickling(dataset)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_several_tensors(tmp_path: Path, place: Callable[[Path], str], save: Callable[..., None]) -> None:
    rng = np.random.default_rng(0)
    arrays = {"a": rng.random((4, 3)), "b": rng.integers(0, 9, (4, 2)), "y": rng.random((4, 1, 2)), "z": np.arange(4)}
    save(tmp_path / "set.npz", **arrays)
    dataset = data.npz(place(tmp_path / "set.npz"), x=("a", "b"), target=("y", "z"))
    dataset.check()
    assert dataset.input_specs == (TensorSpec((3,)), TensorSpec((2,), "int64"))
    (a, b), (y, z) = dataset.batch(ALL, KEY)
    for found, name in ((a, "a"), (b, "b"), (y, "y"), (z, "z")):
        np.testing.assert_allclose(found, arrays[name][ALL], rtol=1e-6)
    refused(data.npz(place(tmp_path / "set.npz"), x="q").check, "holds no array 'q' but a, b, y, z")
    same_after_pickling(dataset)


def test_arrays_that_do_not_fit(tmp_path: Path) -> None:
    def saved(name: str, array: np.ndarray) -> Path:
        np.save(tmp_path / name, array, allow_pickle=True)
        return tmp_path / f"{name}.npy"

    x = saved("x", np.zeros((3, 2)))
    refused(data.npy(x, saved("y", np.zeros(4))).check, "y.npy holds 4 samples", "x.npy 3")
    refused(data.npy(x, saved("l", np.array([0, 1, 7])), classes=3).check, "l.npy, record 2: label 7, expected 0..2")
    refused(data.npy(x, saved("f", np.zeros(3)), classes=3).check, "integer labels")
    refused(data.npy(saved("o", np.array([{}, {}]))).check, "o.npy", "not numbers")
    refused(data.npy(saved("s", np.array(["a"]))).check, "not numbers")
    refused(data.npy(saved("c", np.asfortranarray(np.zeros((3, 2))))).check, "ascontiguousarray")
    refused(data.npy(saved("0", np.float32(1))).check, "single number")
    refused(data.npy(saved("e", np.zeros((3, 0)))).check, "samples are empty")
    refused(data.npy(tmp_path / "none.npy").check, "none.npy does not exist")
    refused(data.npy(tmp_path).check, "is a folder")
    nan = np.zeros((3, 2))
    nan[1, 1] = np.nan
    dataset = data.npy(saved("n", nan))
    dataset.check()
    refused(lambda: dataset.batch(ALL, KEY), "n.npy, record 1", "NaN")
    infinite = data.npy(saved("i", np.full((2, 2), 1e300)))
    refused(infinite.check, "i.npy, record 0", "infinity")  # too large for float32


@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
def test_array_files_cut_anywhere_are_refused(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / ("x.npy" if save is np.save else "x.npz")
    if save is np.save:
        np.save(path, np.arange(12.0).reshape(4, 3))
    else:
        save(path, x=np.arange(12.0).reshape(4, 3))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        dataset = data.npy(path) if save is np.save else data.npz(path, target=())
        refused(dataset.check, str(path))


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255), kind=st.sampled_from(["npy", "npz", "packed"]))
def test_a_changed_byte_in_an_array_file_is_harmless(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, kind: str
) -> None:
    """It is refused in one line, or what is read has the promised shape."""
    stream = io.BytesIO()
    array = np.arange(6.0).reshape(3, 2)
    if kind == "npy":
        np.save(stream, array)
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(stream, x=array)
    whole = bytearray(stream.getvalue())
    whole[position % len(whole)] = value
    path = tmp_path_factory.getbasetemp() / f"changed.{kind}"
    path.write_bytes(whole)
    dataset = data.npy(path) if kind == "npy" else data.npz(path, target=())
    try:
        found, _ = dataset.batch(np.arange(len(dataset)), KEY)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - both outcomes are right
    else:
        assert isinstance(found, np.ndarray)
        assert found.shape == (len(dataset), *dataset.sample_shape)


# --- lines and CSV ---------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=5), max_size=12),
       st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())  # fmt: skip
def test_lines_are_those_of_python(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], newline: str, ending: bool, bom: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    text = newline.join(lines) + (newline if ending else "")
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.encode())
    found = LineFile((str(path),))
    wanted = [line for line in lines if line]
    if bom is False and wanted and wanted[0].startswith("\ufeff"):
        wanted[0] = wanted[0][1:]  # a BOM after all
    assert found.read(np.arange(len(found))) == [line for line in wanted if line]
    assert found.sizes.tolist() == [len(line.encode()) for line in wanted if line]


def test_text_lines(tmp_path: Path, place: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compute.data.lines._BLOCK_BYTES", 7)  # blocks end anywhere
    (tmp_path / "a.txt").write_text("the first\n\nthe second line\n")
    (tmp_path / "b.txt").write_text("ünïcode\r\nlast", newline="")
    dataset = data.text_lines([place(tmp_path / "a.txt"), place(tmp_path / "b.txt")])
    assert len(dataset) == 4
    assert dataset.flow == ((Items(TEXT),), ())
    x, target = dataset.transformed(np.array([3, 0, 2, 1]), KEY)
    assert list(x) == ["last", "the first", "ünïcode", "the second line"]
    assert target == ()
    assert dataset.source.lengths().tolist() == [9, 15, 9, 4]  # type: ignore[union-attr]
    refused(dataset.check, "samples are text, which no model takes", "data.tokenize()")
    (tmp_path / "c.txt").write_bytes(b"good\nb\xffd\n")
    damaged = data.text_lines(tmp_path / "c.txt")
    refused(lambda: damaged.transformed(np.array([1]), KEY), "c.txt, record 1 (byte 5): not UTF-8")
    refused(data.text_lines(tmp_path / "none").check, "none does not exist")
    refused(data.text_lines(tmp_path / "a.txt.gz").check, "is compressed")
    refused(data.text_lines("nowhere://a").check, "nowhere://a", "protocol")
    refused(data.text_lines("memory://nothing/there.txt").check, "memory://nothing/there.txt does not exist")


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(CELLS, st.floats(allow_nan=False, allow_infinity=False, width=32), st.integers(0, 3)),
                min_size=1, max_size=8),
       st.sampled_from([",", ";", "\t"]))  # fmt: skip
def test_csv_reads_what_python_s_writer_wrote(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float, int]], delimiter: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = stdlib_csv.writer(file, delimiter=delimiter)
        writer.writerows([("text", "value", "label"), *rows])
    every = np.arange(len(rows))
    texts = data.csv(path, "text", "label", input_dtype="text", classes=4, delimiter=delimiter)
    assert len(texts) == len(rows)
    x, target = texts.transformed(every, KEY)
    assert list(x) == [text for text, _, _ in rows]
    assert list(target) == [label for _, _, label in rows]
    values, both = data.csv(path, ["value", "label"], ["label", "label"], delimiter=delimiter).batch(every, KEY)
    np.testing.assert_array_equal(values, np.array([row[1:] for row in rows], dtype=np.float32))
    np.testing.assert_array_equal(both, np.array([(row[2], row[2]) for row in rows]))


def test_csv_columns_and_types(tmp_path: Path, place: Callable[[Path], str]) -> None:
    (tmp_path / "a.csv").write_text("x, y,label,price\n1,2,cat,0.5\n3,4,dog,1.5\n")
    (tmp_path / "b.csv").write_text("x, y,label,price\n5,6,cat,2.5")
    paths = [place(tmp_path / "a.csv"), place(tmp_path / "b.csv")]
    dataset = data.csv(paths, (["x", "y"], "price"), "label", classes=["dog", "cat"])
    dataset.check()
    assert dataset.classes == 2
    assert dataset.input_specs == (TensorSpec((2,)), TensorSpec(()))
    (xy, price), label = dataset.batch(ALL, KEY)
    np.testing.assert_array_equal(xy, [[5, 6], [1, 2], [3, 4]])
    np.testing.assert_array_equal(price, [2.5, 0.5, 1.5])
    np.testing.assert_array_equal(label, [1, 1, 0])
    same_after_pickling(dataset)
    regression = data.csv(paths, ["x"], "price", target_dtype="float32")
    assert regression.target_specs == (TensorSpec(()),)
    np.testing.assert_array_equal(regression.batch(ALL, KEY)[1], [2.5, 0.5, 1.5])
    (tmp_path / "plain.csv").write_text("1;2\n3;4\n5;6\n")
    plain = data.csv(place(tmp_path / "plain.csv"), ["1", "0"], header=False, delimiter=";", input_dtype="int64")
    x, target = plain.batch(ALL, KEY)
    np.testing.assert_array_equal(x, [[6, 5], [2, 1], [4, 3]])
    assert (x.dtype, target) == (np.int64, ())  # type: ignore[union-attr]


def test_faults_in_csv_files(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"

    def look(text: str, **options: object) -> Callable[[], object]:
        path.write_text(text)
        dataset = data.csv(path, **{"inputs": ["x"], "target": "y", **options})  # type: ignore[arg-type]
        return lambda: (dataset.check(), dataset.batch(np.arange(len(dataset)), KEY))

    good = "x,y\n1,0\n"
    look(good)()
    refused(look(good + "2\n"), "a.csv, record 1 (byte 8): 1 fields instead of 2")
    refused(look(good + "2,1,3\n"), "record 1", "3 fields")
    refused(look(good + "two,1\n"), "record 1", "column 'x': 'two' is no number")
    refused(look(good + ",1\n"), "record 1", "column 'x': '' is no number")
    refused(look(good + "2,1.5\n"), "column 'y': '1.5' is no whole number")
    refused(look(good + "nan,1\n"), "record 1", "NaN")
    refused(look(good + "2,3\n", classes=3), "record 1", "label 3, expected 0..2")
    refused(look(good, classes=["a"]), "record 0", "'0' is none of the labels a")
    refused(look(good + '"2,1\n'), "a.csv", "ends within double quotes")
    refused(look(good + '2"3"4,1\n5"",1\n"a"b,1\n'), "record 3", "no CSV record")
    refused(look(good, inputs=["z"]), "no column 'z'; it has x, y")
    refused(look(good, inputs=["0", "7"], target=None, header=False), "no column '7'")
    refused(look(""), "a.csv is empty")
    refused(look("x,y\n"), "has no samples")
    (tmp_path / "b.csv").write_text("y,x\n1,0\n")
    refused(data.csv([path, tmp_path / "b.csv"], ["x"]).check, "b.csv has other columns")
    for options, word in (({"inputs": 3}, "column's name"), ({"inputs": "x", "delimiter": "ab"}, "one character"),
                          ({"inputs": "x", "input_dtype": "int8"}, "a type is one of"),
                          ({"inputs": ["x"], "input_dtype": "text"}, "no vector"),
                          ({"inputs": "x", "classes": 3}, "classes are for")):  # fmt: skip
        refused(lambda options=options: data.csv(path, **options), word)  # type: ignore[misc]


# --- Parquet ---------------------------------------------------------------------------------------------------------


def png(height: int, width: int, seed: int = 0, mode: str = "RGB") -> tuple[bytes, np.ndarray]:
    """A PNG file and its pixels (3, height, width)."""
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue(), (pixels if mode == "RGB" else np.repeat(pixels[..., None], 3, 2)).transpose(2, 0, 1)


@pytest.fixture
def table() -> pa.Table:
    rng = np.random.default_rng(0)
    pictures = [png(4 + i % 2, 5, i)[0] for i in range(11)]
    return pa.table({
        "a": pa.array(rng.random(11)), "b": pa.array(rng.random(11).astype(np.float32)), "whole": pa.array(range(11)),
        "byte": pa.array(np.arange(11, dtype=np.uint8)), "flag": pa.array([True, False] * 5 + [True]),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(rng.random(33)), 3),
        "sequence": pa.array([list(range(i)) for i in range(11)], pa.list_(pa.int64())),
        "text": pa.array([f"text {i}" for i in range(11)]), "picture": pa.array(pictures),
        "hugging": pa.array([{"bytes": p, "path": None} for p in pictures]),
    })  # fmt: skip


def test_parquet_columns(tmp_path: Path, place: Callable[[Path], str], table: pa.Table) -> None:
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=4)
    name = place(tmp_path / "a.parquet")
    indices = np.array([10, 0, 5, 3, 4, 5], dtype=np.int64)

    def column(key: str) -> list[object]:
        return [table[key][int(i)].as_py() for i in indices]

    dataset = data.parquet(name, (["a", "b"], "whole", "vector", "flag"), "byte", classes=11)
    dataset.check()
    assert dataset.input_specs == (TensorSpec((2,)), TensorSpec((), "int64"), TensorSpec((3,)), TensorSpec(()))
    (ab, whole, vector, flag), byte = dataset.batch(indices, KEY)
    np.testing.assert_allclose(ab, np.stack([column("a"), column("b")], axis=1).astype(np.float64), rtol=1e-6)
    np.testing.assert_array_equal(whole, column("whole"))
    np.testing.assert_allclose(vector, np.array(column("vector")), rtol=1e-6)
    np.testing.assert_array_equal(flag, column("flag"))
    np.testing.assert_array_equal(byte, column("byte"))
    same_after_pickling(dataset)

    dataset = data.parquet(name, ("text", "sequence", "picture", "hugging"))
    assert [spec.kind for spec in dataset.flow[0]] == [TEXT, SEQUENCES, IMAGES, IMAGES]  # type: ignore[union-attr]
    (text, sequence, picture, hugging), _ = dataset.transformed(indices, KEY)
    assert list(text) == column("text")
    assert [ids.tolist() for ids in sequence] == column("sequence")
    for found, same, index in zip(picture, hugging, indices.tolist(), strict=True):
        np.testing.assert_array_equal(found, png(4 + index % 2, 5, index)[1])
        np.testing.assert_array_equal(same, found)


def test_parquet_folders_and_orders(tmp_path: Path, place: Callable[[Path], str]) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for part in range(3):
        rows = np.arange(part * 1000, (part + 1) * 1000)
        pq.write_table(pa.table({"x": rows}), folder / f"{part}.parquet", row_group_size=100, compression="none",
                       use_dictionary=False)  # fmt: skip
    (folder / "notes.txt").write_text("no data")
    whole = data.parquet(place(folder), "x")
    assert len(whole) == 3000
    np.testing.assert_array_equal(whole.order(1, 2), data.epoch_order(3000, 1, 2))  # all fits
    tight = data.parquet(place(folder), "x")
    bytes_of_group = tight.source.opened.bytes[0]  # type: ignore[attr-defined]
    tight.source.opened.cache_bytes = 4 * bytes_of_group  # type: ignore[attr-defined]
    order = tight.order(1, 2)
    np.testing.assert_array_equal(np.sort(order), np.arange(3000))
    assert not np.array_equal(order, tight.order(1, 3))
    reads: list[int] = []
    tables = tight.source.opened  # type: ignore[attr-defined]
    read = tables._read
    tables._read = lambda number: reads.append(number) or read(number)
    for begin in range(0, 3000, 50):
        assert len(np.unique(order[begin : begin + 50] // 100)) <= 4
        x, _ = tight.batch(order[begin : begin + 50], KEY)
        np.testing.assert_array_equal(x, order[begin : begin + 50])
    assert sorted(reads) == list(range(30))  # every row group was read once
    assert len(tables._cached) == 4


def test_faults_in_parquet_files(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"x": pa.array([1.0, None, 3.0]), "y": [0, 1, 9], "d": pa.array([0, 1, 2], pa.date32())}), path
    )
    refused(data.parquet(path, "x").check, "a.parquet, row group 0, row 1: column 'x' has no value")
    refused(data.parquet(path, "z").check, "no column 'z'; it has x, y, d")
    refused(data.parquet(path, "d").check, "column 'd' is date32")
    refused(data.parquet(path, ["x", "d"]).check, "joins columns of single numbers")
    refused(lambda: data.parquet(path, "y", "y", classes=9).batch(ALL, KEY), "row 2: label 9, expected 0..8")
    refused(data.parquet(path, "y", "x", classes=9).check, "classes are for")
    refused(data.parquet(tmp_path / "none.parquet", "x").check, "none.parquet does not exist")
    refused(lambda: data.parquet(path, "x", cache_mb=0), "cache_mb")
    pq.write_table(pa.table({"y": ["a"]}), tmp_path / "b.parquet")
    refused(data.parquet([path, tmp_path / "b.parquet"], "y").check, "b.parquet: column 'y' has another type")
    (tmp_path / "empty").mkdir()
    refused(data.parquet(tmp_path / "empty", "y").check, "no file that ends in .parquet")
    pq.write_table(pa.table({"x": pa.array([b"no image"])}), path)
    refused((data.parquet(path, "x") >> data.resize((2, 2))).check, "row 0 is no image")


def test_parquet_files_cut_anywhere_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": np.arange(20.0)}), path, row_group_size=10)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        refused(data.parquet(path, "x").check, str(path))
    for position in range(4, len(whole) // 3, 5):  # within the pages
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        dataset = data.parquet(path, "x")
        refusal = str(path)
        try:
            dataset.batch(np.arange(20), KEY)  # a change within a value cannot be noticed
        except InputError as error:
            refusal = str(error)
        assert str(path) in refusal
        assert "\n" not in refusal


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for name, height, width, mode in (
        ("cat/1.png", 8, 9, "RGB"),
        ("cat/deep/2.PNG", 10, 8, "RGB"),
        ("ant/x.png", 12, 12, "L"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(height, width, height, mode)[0])
    (folder / "cat/notes.txt").write_text("no picture")
    (folder / "cat/.hidden.png").write_text("no picture")
    return folder


def test_image_folder(pictures: Path, place: Callable[[Path], str]) -> None:
    dataset = data.image_folder(place(pictures))
    assert (len(dataset), dataset.classes) == (3, 2)
    x, target = dataset.transformed(np.arange(3), KEY)
    for image, (height, width, mode) in zip(x, [(12, 12, "L"), (8, 9, "RGB"), (10, 8, "RGB")], strict=True):
        np.testing.assert_array_equal(image, png(height, width, height, mode)[1])
    np.testing.assert_array_equal(target, [0, 1, 1])
    refused(dataset.check, "images of any size", "data.resize")
    cropped = dataset >> data.resize(8) >> data.random_crop(6) >> data.normalize([0.5] * 3, [0.2] * 3)
    cropped.check()
    found, _ = cropped.batch(ALL, KEY)
    assert found.shape == (3, 3, 6, 6)  # type: ignore[union-attr]
    same_after_pickling(cropped)
    grey, _ = (data.image_folder(place(pictures), channels=1) >> data.center_crop(8)).batch(np.array([0]), KEY)
    np.testing.assert_array_equal(grey[0, 0], png(12, 12, 12, "L")[1][0, 2:10, 2:10])  # type: ignore[call-overload]


def test_damaged_pictures_are_named(pictures: Path) -> None:
    path = pictures / "ant" / "x.png"
    whole = path.read_bytes()
    dataset = data.image_folder(pictures) >> data.resize((4, 4))
    for length in range(0, len(whole) - 24, 11):  # behind the pixels there are only checksums and the end
        path.write_bytes(whole[:length])
        refused(dataset.check, f"{path} is no image or a damaged one")
    stream = io.BytesIO()
    Image.fromarray(png(16, 16)[1].transpose(1, 2, 0).copy()).save(stream, "jpeg")
    path.write_bytes(stream.getvalue()[:-40])
    refused(dataset.check, str(path), "truncated")
    path.unlink()
    refused(lambda: dataset.batch(np.array([0]), KEY), f"{path} does not exist")
    refused(data.image_folder(pictures / "nowhere").check, "nowhere does not exist")
    (pictures / "bare").mkdir()
    refused(data.image_folder(pictures / "bare").check, "one subfolder per class")
    refused(lambda: data.image_folder(pictures, channels=4), "channels must be 1")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about odd metadata
@settings(max_examples=200, deadline=None)
@given(
    position=st.integers(0, 10_000),
    value=st.integers(0, 255),
    kind=st.sampled_from(["png", "jpeg", "gif", "bmp", "tiff"]),
)
def test_a_changed_byte_in_a_picture_is_harmless(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, kind: str
) -> None:
    stream = io.BytesIO()
    Image.fromarray(png(6, 5)[1].transpose(1, 2, 0).copy()).save(stream, kind)
    whole = bytearray(stream.getvalue())
    whole[position % len(whole)] = value
    folder = tmp_path_factory.getbasetemp() / "changed"
    (folder / "a").mkdir(parents=True, exist_ok=True)
    path = folder / "a" / "x.png"
    path.write_bytes(whole)
    try:
        x, _ = (data.image_folder(folder) >> data.resize((3, 3))).batch(np.array([0]), KEY)
    except InputError as error:
        refusal = str(error)
    else:
        assert x.shape == (1, 3, 3, 3)  # type: ignore[union-attr]
        return
    assert str(path) in refusal
    assert "\n" not in refusal


def test_text_folder(tmp_path: Path, place: Callable[[Path], str]) -> None:
    for name, text in (("b/1.txt", "good day"), ("a/2", "näh"), ("b/0", "more")):
        (tmp_path / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / name).write_text(text)
    dataset = data.text_folder(place(tmp_path / "texts"))
    x, target = dataset.transformed(np.arange(3), KEY)
    assert list(x) == ["näh", "more", "good day"]
    assert list(target) == [0, 1, 1]
    refused(dataset.check, "which no model takes")
    refused(lambda: data.text_folder(tmp_path / "texts", "ascii").transformed(np.array([0]), KEY), "a/2 is not ascii")
    refused(lambda: data.text_folder(tmp_path / "texts", "xx").transformed(np.array([0]), KEY), "no encoding 'xx'")


def test_mnist_from_a_url(tmp_path: Path, place: Callable[[Path], str]) -> None:
    import gzip

    folder = tmp_path / "mnist"
    folder.mkdir()
    images = np.arange(18, dtype=np.uint8).reshape(3, 2, 3)
    header = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in images.shape)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
    (folder / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x03\x07\x08\x09")
    dataset = data.mnist(place(folder))
    dataset.check()
    x, target = dataset.batch(ALL, KEY)
    np.testing.assert_array_equal(x, images[ALL, None])
    np.testing.assert_array_equal(target, [9, 7, 8])
    same_after_pickling(dataset)


def test_local_files_need_no_fsspec(tmp_path: Path) -> None:
    """Nor pyarrow nor Pillow where they are not used: what a job does not need costs it no start-up time."""
    import subprocess
    import sys

    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    (tmp_path / "x.csv").write_text("x\n1\n2\n")
    code = (
        "import sys; from compute import data; import numpy as np\n"
        f"data.npy({str(tmp_path / 'x.npy')!r}).check(); data.csv({str(tmp_path / 'x.csv')!r}, 'x').check()\n"
        "assert not {'fsspec', 'pyarrow', 'PIL'} & set(sys.modules), set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
