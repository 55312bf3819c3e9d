"""Checkpoints: directories `step-<step>` below a URL, each with one file per slice and a manifest.

    step-00000235/slice-0-22213.bin       float32 arrays of the slice, little-endian, one after the other
    step-00000235/checkpoint.json         what is in it, with sizes and SHA-256 digests; written last

A checkpoint exists once its manifest does. On a local file system each file is written beside its place, synced and
renamed; elsewhere fsspec's single-object write takes that part. Nothing in a checkpoint is ever unpickled.
"""

import hashlib
import json
import os
import posixpath
import secrets
from dataclasses import asdict, dataclass, field
from typing import Any

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from compute import InputError

MANIFEST = "checkpoint.json"
FORMAT = 1
PARAMETERS = "parameters"

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class PartInfo:
    """One file of a checkpoint: `arrays` float32 arrays of end - begin elements each, in this order."""

    file: str
    sha256: str
    bytes: int
    begin: int
    end: int
    arrays: list[str]


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds and of which training it is.

    Attributes:
        step: last committed step.
        fingerprint: of the model (compute.fingerprint).
        parameters: elements of the flat vector.
        training: constants of the job that the order of samples and the cut into micro-batches depend on.
        progress: fields of lease_book.Resumable.
        parts: the files.
        layout: name, shape and offset of each parameter, for whoever reads the checkpoint without the model.
        optimizers: their kinds, by name prefix.
        memory: what optimizers remember beside arrays (compute.optim.ParameterUpdate.memory).
    """

    step: int
    fingerprint: str
    parameters: int
    training: dict[str, int]
    progress: dict[str, Any]
    parts: list[PartInfo]
    layout: list[dict[str, Any]] = field(default_factory=list)
    optimizers: dict[str, str] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT


def step_url(url: str, step: int) -> str:
    """Where the checkpoint of a step lies."""
    return posixpath.join(url, f"step-{step:08d}")


def write_part(url: str, begin: int, end: int, arrays: dict[str, Vector]) -> PartInfo:
    """Writes one slice's file into the checkpoint at `url`.

    Raises:
        InputError: the place cannot be written to.
    """
    data = b"".join(np.ascontiguousarray(a, dtype="<f4").tobytes() for a in arrays.values())
    name = f"slice-{begin}-{end}.bin"
    _write(url, name, data)
    return PartInfo(name, hashlib.sha256(data).hexdigest(), len(data), begin, end, list(arrays))


def write_manifest(url: str, manifest: Manifest) -> None:
    """Completes the checkpoint at `url`.

    Raises:
        InputError: the place cannot be written to.
    """
    _write(url, MANIFEST, json.dumps(asdict(manifest), indent=1, sort_keys=True).encode())


def newest(url: str) -> str | None:
    """URL of the complete checkpoint with the highest step below `url`; None if there is none.

    Raises:
        InputError: the place cannot be read.
    """
    fs, path = _open(url)
    try:
        if not fs.exists(path):
            return None
        names = [posixpath.basename(p.rstrip("/")) for p in fs.ls(path, detail=False)]
        steps = sorted((n for n in names if n.startswith("step-") and n[5:].isdigit()), key=lambda n: int(n[5:]))
        for name in reversed(steps):
            if fs.exists(posixpath.join(path, name, MANIFEST)):
                return posixpath.join(url, name)
    except OSError as error:
        raise InputError(f"cannot read checkpoints in {url}: {error}") from None
    return None


def read_manifest(url: str) -> Manifest:
    """Manifest of the checkpoint at `url`.

    Raises:
        InputError: it is damaged or of another format; the remedy is named.
    """
    fs, path = _open(url)
    try:
        fields = json.loads(fs.cat_file(posixpath.join(path, MANIFEST)))
        if fields["format"] != FORMAT:
            raise InputError(f"checkpoint {url} has format {fields['format']}, this version reads format {FORMAT}")
        fields["parts"] = [PartInfo(**part) for part in fields["parts"]]
        return Manifest(**fields)
    except OSError as error:
        raise InputError(f"cannot read checkpoint {url}: {error}") from None
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise _damaged(url, f"{MANIFEST} does not parse") from None


def check(url: str, manifest: Manifest, fingerprint: str, parameters: int, training: dict[str, int]) -> None:
    """Refuses a checkpoint of another model or of another training.

    Raises:
        InputError: it does not fit; what differs is named.
    """
    if manifest.parameters != parameters or manifest.fingerprint != fingerprint:
        raise InputError(
            f"checkpoint {url} is of another model ({manifest.parameters} parameters, this one has {parameters}): "
            "resume with the script that wrote it, or name another checkpoint directory"
        )
    for name, value in training.items():
        if manifest.training.get(name) != value:
            raise InputError(
                f"checkpoint {url} was trained with {name}={manifest.training.get(name)}, now it is {value}: "
                f"resume with the same {name}, or name another checkpoint directory"
            )
    covered = 0
    for part in sorted(manifest.parts, key=lambda p: p.begin):
        if part.begin != covered:
            raise _damaged(url, f"no file covers element {covered}")
        covered = part.end
    if covered != parameters:
        raise _damaged(url, f"no file covers element {covered}")


def load_slice(url: str, manifest: Manifest, begin: int, end: int) -> dict[str, Vector]:
    """The arrays of the checkpoint, elements [begin, end), from whatever files hold them.

    Returns:
        Array name -> float32 (end - begin,), `PARAMETERS` among them.

    Raises:
        InputError: a file is missing, cut short or changed.
    """
    fs, path = _open(url)
    names = manifest.parts[0].arrays
    out = {name: np.empty(end - begin, dtype=np.float32) for name in names}
    for part in manifest.parts:
        low, high = max(begin, part.begin), min(end, part.end)
        if low >= high:
            continue
        if part.arrays != names:
            raise _damaged(url, f"{part.file} holds other arrays than {manifest.parts[0].file}")
        try:
            data = fs.cat_file(posixpath.join(path, part.file))
        except FileNotFoundError:
            raise _damaged(url, f"{part.file} is missing") from None
        except OSError as error:
            raise InputError(f"cannot read checkpoint {url}: {error}") from None
        if len(data) != part.bytes:
            raise _damaged(url, f"{part.file} has {len(data)} of {part.bytes} bytes")
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise _damaged(url, f"the digest of {part.file} differs")
        arrays = np.frombuffer(data, dtype="<f4").reshape(len(names), part.end - part.begin)
        for name, array in zip(names, arrays, strict=True):
            out[name][low - begin : high - begin] = array[low - part.begin : high - part.begin]
    return out


def _damaged(url: str, what: str) -> InputError:
    return InputError(f"checkpoint {url} is damaged ({what}): delete it to resume from the one before")


def _open(url: str) -> tuple[Any, str]:
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise InputError(f"cannot use the checkpoint URL {url}: {error}") from None
    return fs, path


def _write(url: str, name: str, data: bytes) -> None:
    fs, path = _open(url)
    try:
        fs.makedirs(path, exist_ok=True)
        if isinstance(fs, LocalFileSystem):
            _write_local(path, name, data)
        else:
            fs.pipe_file(posixpath.join(path, name), data)
    except OSError as error:
        raise InputError(f"cannot write checkpoint {url}: {error}") from None


def _write_local(directory: str, name: str, data: bytes) -> None:
    beside = os.path.join(directory, f".{name}.{secrets.token_hex(4)}")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, os.path.join(directory, name))
    except OSError:
        if os.path.exists(beside):
            os.unlink(beside)
        raise
    for place in (directory, os.path.dirname(directory)):
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
