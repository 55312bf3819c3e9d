"""Parquet files, by pyarrow: columns as tensors, texts, sequences or images."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.data import files
from compute.data.columns import Columns, Group, groups, missing
from compute.data.dataset import Dataset
from compute.data.image_files import decode_image
from compute.data.items import IMAGES, SEQUENCES, TEXT, Flow, Items, Spec, item_array
from compute.data.labels import check_labels, whole_classes
from compute.data.order import block_order
from compute.data.source import Indices, LazySource, Tensors, check_indices
from compute.data.text_files import located
from compute.errors import InputError
from compute.spec import TensorSpec

RowGroup = dict[str, NDArray[Any]]


class _Tables:
    """The opened files, their row groups one after the other, and those that were used last."""

    def __init__(self, names: tuple[str, ...], columns: list[str], cache_bytes: int) -> None:
        self.names, self.columns, self.cache_bytes = names, columns, cache_bytes
        self._lock = threading.Lock()
        self._cached: dict[int, tuple[RowGroup, int]] = {}
        self.readers = [_open(name) for name in names]
        self.schema = self.readers[0].schema_arrow
        self.groups: list[tuple[int, int]] = []  # file, row group in it
        sizes: list[int] = []
        self.bytes: list[int] = []
        for number, (name, opened) in enumerate(zip(names, self.readers, strict=True)):
            found = opened.schema_arrow
            if not set(columns) <= set(found.names):
                raise missing(name, columns, found.names)
            for column in columns:
                if found.field(column).type != self.schema.field(column).type:
                    raise InputError(f"{name}: column {column!r} has another type than in {names[0]}; make them alike")
            for group in range(opened.metadata.num_row_groups):
                meta = opened.metadata.row_group(group)
                chunks = [meta.column(c) for c in range(meta.num_columns)]
                self.groups.append((number, group))
                sizes.append(meta.num_rows)
                self.bytes.append(
                    sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] in columns)
                )
        self.sizes = np.array(sizes, dtype=np.int64)
        self.begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.sizes)])

    @property
    def window(self) -> int:
        """Row groups that surely fit into the cache together; all if they all do."""
        if sum(self.bytes) <= self.cache_bytes:
            return len(self.groups)
        return max(self.cache_bytes // max(self.bytes), 1)

    def group(self, number: int) -> RowGroup:
        """The wanted columns of a row group. Raises InputError where the file is damaged or a value missing."""
        with self._lock:
            kept = self._cached.pop(number, None)
            if kept is None:
                kept = self._read(number), self.bytes[number]
            self._cached[number] = kept  # the last used comes last
            while len(self._cached) > 1 and sum(size for _, size in self._cached.values()) > self.cache_bytes:
                del self._cached[next(iter(self._cached))]
            return kept[0]

    def describe(self, index: int) -> str:
        """File, row group and row of a sample."""
        number = int(np.searchsorted(self.begins, index, side="right")) - 1
        file, group = self.groups[number]
        return f"{self.names[file]}, row group {group}, row {index - int(self.begins[number])}"

    def _read(self, number: int) -> RowGroup:
        from pyarrow.lib import ArrowException

        file, group = self.groups[number]
        try:
            table = self.readers[file].read_row_group(group, columns=self.columns, use_threads=False)
        except (ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{self.names[file]}, row group {group} is damaged ({reason}); {files.REMEDY}") from None
        if table.num_rows != self.sizes[number]:
            raise InputError(f"{self.names[file]}, row group {group} is damaged: {table.num_rows} rows; {files.REMEDY}")
        columns = {}
        for name in self.columns:
            column = table.column(name).combine_chunks()
            if column.null_count:
                row = int(np.argmin(np.asarray(column.is_valid())))
                where = self.describe(int(self.begins[number]) + row)
                raise InputError(f"{where}: column {name!r} has no value; fill it, or leave the row out")
            columns[name] = _to_numpy(column, f"{self.names[file]}, row group {group}, column {name!r}")
        return columns


def _open(name: str) -> Any:
    from pyarrow import parquet as pq  # here, since it is large and only Parquet files need it
    from pyarrow.lib import ArrowException

    if files.is_url(name):
        system, path = files.filesystem(name)
        with files.errors_of(name):
            source = system.open(path, "rb")
    else:
        source = files.open_file(name).name  # tells what is wrong with the name in our words
    try:
        return pq.ParquetFile(source)
    except (ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name} is no Parquet file or a damaged one ({reason}); {files.REMEDY}") from None


def _to_numpy(column: Any, where: str) -> NDArray[Any]:
    """A column without nulls: numbers (n,), vectors (n, k), or items."""
    import pyarrow as pa

    if hasattr(column, "chunks"):  # combine_chunks of no chunk at all
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    kind = column.type
    if pa.types.is_fixed_size_list(kind) or _is_list(kind):
        flat = column.flatten()
        if flat.null_count:
            raise InputError(f"{where} has lists with missing values; fill them")
        values = flat.to_numpy(zero_copy_only=False)
        if pa.types.is_fixed_size_list(kind):
            return np.asarray(values.reshape(len(column), kind.list_size))
        ends = np.cumsum(column.value_lengths().to_numpy(zero_copy_only=False))
        return item_array(np.split(values, ends[:-1]) if len(ends) else [])
    if _is_text(kind) or _is_binary(kind):
        return item_array(column.to_pylist())
    if pa.types.is_struct(kind):
        return item_array(column.field("bytes").to_pylist())
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _number_type(kind: Any, labels: bool) -> str | None:
    """Type of the tensor that numbers of an Arrow type become; None if they are no numbers."""
    import pyarrow as pa

    if pa.types.is_integer(kind):
        return "int64" if labels or kind.bit_width >= 32 else "float32"
    return "float32" if pa.types.is_floating(kind) or pa.types.is_boolean(kind) else None


def _spec(group: Group, schema: Any, name: str, labels: bool) -> Spec:
    import pyarrow as pa

    kinds = [schema.field(column).type for column in group.names]
    if group.joined:
        numbers = [_number_type(kind, labels) for kind in kinds]
        if None not in numbers:
            return TensorSpec((len(kinds),), "int64" if set(numbers) == {"int64"} else "float32")
        raise InputError(f"{name}: a list joins columns of single numbers, but {group.names} are {kinds}")
    (kind,) = kinds
    number = _number_type(kind, labels)
    if number:
        return TensorSpec((), number)
    inner = _number_type(kind.value_type, labels) if pa.types.is_fixed_size_list(kind) or _is_list(kind) else None
    if inner and pa.types.is_fixed_size_list(kind):
        return TensorSpec((kind.list_size,), inner)
    if inner:
        return Items(SEQUENCES, inner)
    if _is_text(kind):
        return Items(TEXT)
    if _is_binary(kind) or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
        return Items(IMAGES, "float32", (3,))
    raise InputError(f"{name}: column {group.names[0]!r} is {kind}, of which no tensor can be made")


class ParquetSource(LazySource[_Tables]):
    """Rows of Parquet files. An epoch's order stays within so many row groups at a time as the cache holds."""

    def __init__(
        self, names: tuple[str, ...], inputs: tuple[Group, ...], targets: tuple[Group, ...], classes: int | None,
        cache_mb: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.names, self.inputs, self.targets, self._classes, self.cache_mb = names, inputs, targets, classes, cache_mb

    def _open(self) -> _Tables:
        names = self.names
        if len(names) == 1 and files.is_folder(names[0]):
            names = tuple(files.join(names[0], name) for name in files.walk(names[0]) if name.endswith(".parquet"))
            if not names:
                raise InputError(f"{self.names[0]} holds no file that ends in .parquet; name a folder that does")
        columns = sorted({name for group in (*self.inputs, *self.targets) for name in group.names})
        return _Tables(names, columns, self.cache_mb << 20)

    def __len__(self) -> int:
        return int(self.opened.begins[-1])

    @property
    def input_specs(self) -> Flow:
        tables = self.opened
        return tuple(_spec(group, tables.schema, tables.names[0], False) for group in self.inputs)

    @property
    def target_specs(self) -> Flow:
        tables = self.opened
        return tuple(_spec(group, tables.schema, tables.names[0], True) for group in self.targets)

    @property
    def classes(self) -> int | None:
        return self._classes

    def order(self, seed: int, epoch: int) -> Indices:
        return block_order(self.opened.sizes, self.opened.window, seed, epoch)

    def describe(self, index: int) -> str:
        return self.opened.describe(index)

    def check(self) -> None:
        """Looks at the files' metadata."""
        if self._classes is not None and self.target_specs != (TensorSpec((), "int64"),):
            raise InputError("parquet: classes are for a target that is one column of whole numbers")

    def read(self, indices: Indices) -> tuple[Tensors, Tensors]:
        tables = self.opened
        check_indices(indices, len(self), tables.names[0])
        of = np.searchsorted(tables.begins, indices, side="right") - 1
        columns: dict[str, NDArray[Any]] = {}
        for number in np.unique(of).tolist():
            rows = np.flatnonzero(of == number)
            own = indices[rows] - tables.begins[number]
            for name, values in tables.group(number).items():
                if name not in columns:
                    columns[name] = np.empty((len(indices), *values.shape[1:]), dtype=values.dtype)
                columns[name][rows] = values[own]
        x = tuple(self._tensor(group, columns, indices) for group in self.inputs)
        target = tuple(self._tensor(group, columns, indices) for group in self.targets)
        if self._classes is not None:
            check_labels(target[0], self._classes, indices, self.describe)
        return (x[0] if len(x) == 1 else x), (target[0] if len(target) == 1 else target)

    def _tensor(self, group: Group, columns: RowGroup, indices: Indices) -> NDArray[Any]:
        if group.joined:
            return np.stack([columns[name] for name in group.names], axis=1)
        column = columns[group.names[0]]
        if len(column) and column.dtype == object and isinstance(column[0], bytes):
            pairs = zip(column, indices.tolist(), strict=True)
            return item_array(decode_image(data, self.describe(index)) for data, index in pairs)
        return column


def parquet(
    paths: files.PathLike | Sequence[files.PathLike],
    inputs: Columns,
    target: Columns | None = None,
    classes: int | None = None,
    cache_mb: int = 256,
) -> Dataset:
    """A data set of Parquet files.

    Numbers become tensors of one number, lists of a fixed size vectors, other lists sequences for `data.pad`; texts
    become texts; bytes (also as struct with a field `bytes`) are image files, decoded to bytes (3, height, width).
    Whole numbers of 32 bits and more are int64 (in targets all whole numbers), other numbers float32.

    Files are read by row groups. If they do not fit into `cache_mb`, an epoch mixes as many at a time as do, chosen at
    random, so that each is read a few times and not once per sample; write row groups of some 10 MB.

    Args:
        paths: path or URL of a file or a folder, or several files with the same columns.
        inputs: a column's name; a list of names, whose numbers make a vector; or a tuple of these for several tensors.
        target: likewise; None for none.
        classes: the number of classes, if the target is a label.
    """
    if isinstance(cache_mb, bool) or not isinstance(cache_mb, int) or cache_mb < 1:
        raise InputError(f"parquet: cache_mb must be a whole number of at least 1, got {cache_mb!r}")
    x, y = groups("parquet", "inputs", inputs), groups("parquet", "target", target)
    return Dataset(ParquetSource(located("parquet", paths), x, y, whole_classes("parquet", classes), cache_mb))
