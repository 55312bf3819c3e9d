"""Checkpoints of trainings: directories `step-<step>` below a URL, in the format of proto/checkpoint.proto.

    step-00000235/slice-0-22213.bin    float32 arrays of the slice, little-endian, one after the other
    step-00000235/checkpoint.pb        what is in it, with sizes and SHA-256 digests; written last

A checkpoint exists once its manifest does. On a local file system each file is written beside its place, synced and
renamed; elsewhere fsspec's single-object write takes that part. Where even that leaves half a file behind when the
writer dies, the manifest's own digest tells. Nothing in a checkpoint is ever unpickled.
"""

import hashlib
import logging
import posixpath
from collections.abc import Mapping

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from compute.errors import InputError
from compute.storage import list_files, read_file, write_file
from proto.checkpoint_pb2 import Checkpoint, CheckpointPart

MANIFEST = "checkpoint.pb"
FORMAT = 2
PARAMETERS = "parameters"
_DIGEST_BYTES = 32

logger = logging.getLogger(__name__)

Vector = NDArray[np.float32]


def step_url(url: str, step: int) -> str:
    """Where the checkpoint of a step lies."""
    return posixpath.join(url, f"step-{step:08d}")


def write_part(url: str, begin: int, end: int, arrays: dict[str, Vector]) -> CheckpointPart:
    """Writes one slice's file into the checkpoint at `url`.

    Raises:
        InputError: the place cannot be written to.
    """
    views = [np.ascontiguousarray(array, dtype="<f4").data.cast("B") for array in arrays.values()]
    digest = hashlib.sha256()
    for view in views:
        digest.update(view)
    name = f"slice-{begin}-{end}.bin"
    write_file(posixpath.join(url, name), views)
    size = sum(len(view) for view in views)
    return CheckpointPart(file=name, sha256=digest.digest(), bytes=size, begin=begin, end=end, arrays=list(arrays))


def write_manifest(url: str, manifest: Checkpoint) -> None:
    """Completes the checkpoint at `url`.

    Raises:
        InputError: the place cannot be written to.
    """
    manifest.format = FORMAT
    data = manifest.SerializeToString(deterministic=True)
    write_file(posixpath.join(url, MANIFEST), (hashlib.sha256(data).digest(), data))


def steps(url: str) -> list[int]:
    """Steps of all checkpoints below `url`, complete or not, ascending. Raises InputError if it cannot be read."""
    return sorted(int(name[5:]) for name in list_files(url) if name.startswith("step-") and name[5:].isdigit())


def newest(url: str) -> str | None:
    """URL of the complete checkpoint with the highest step below `url`; None if there is none.

    Raises:
        InputError: the place cannot be read.
    """
    for step in reversed(steps(url)):
        place = step_url(url, step)
        if not is_complete(place):
            continue
        try:
            _manifest_bytes(place)
        except InputError as error:  # half of it was written, where no file system keeps writers from that
            logger.warning("passed over: %s", error)
            continue
        return place
    return None


def is_complete(url: str) -> bool:
    """Whether there is a checkpoint at `url`. Raises InputError if the place cannot be read."""
    return MANIFEST in list_files(url)


def read_manifest(url: str) -> Checkpoint:
    """Manifest of the checkpoint at `url`.

    Raises:
        InputError: it is damaged or of another format; the remedy is named.
    """
    manifest = Checkpoint()
    try:
        manifest.ParseFromString(_manifest_bytes(url))
    except DecodeError:
        raise _damaged(url, f"{MANIFEST} does not parse") from None
    if manifest.format != FORMAT:
        raise InputError(f"checkpoint {url} has format {manifest.format}, this version reads format {FORMAT}")
    return manifest


def _manifest_bytes(url: str) -> bytes:
    content = read_file(posixpath.join(url, MANIFEST))
    data = content[_DIGEST_BYTES:]
    if hashlib.sha256(data).digest() != content[:_DIGEST_BYTES]:
        raise _damaged(url, f"the digest of {MANIFEST} differs")
    return data


def check(
    url: str, manifest: Checkpoint, fingerprint: str, parameters: int, training: Mapping[str, int]
) -> None:
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
        if name not in manifest.training or manifest.training[name] != value:
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


def load_slice(url: str, manifest: Checkpoint, begin: int, end: int) -> dict[str, Vector]:
    """The arrays of the checkpoint, elements [begin, end), from whatever files hold them.

    Returns:
        Array name -> float32 (end - begin,), `PARAMETERS` among them.

    Raises:
        InputError: a file is missing, cut short or changed.
    """
    names = list(manifest.parts[0].arrays)
    out = {name: np.empty(end - begin, dtype=np.float32) for name in names}
    for part in manifest.parts:
        low, high = max(begin, part.begin), min(end, part.end)
        if low >= high:
            continue
        if list(part.arrays) != names:
            raise _damaged(url, f"{part.file} holds other arrays than {manifest.parts[0].file}")
        if part.file not in list_files(url):
            raise _damaged(url, f"{part.file} is missing")
        data = read_file(posixpath.join(url, part.file))
        if len(data) != part.bytes:
            raise _damaged(url, f"{part.file} has {len(data)} of {part.bytes} bytes")
        if hashlib.sha256(data).digest() != part.sha256:
            raise _damaged(url, f"the digest of {part.file} differs")
        arrays = np.frombuffer(data, dtype="<f4").reshape(len(names), part.end - part.begin)
        for name, array in zip(names, arrays, strict=True):
            out[name][low - begin : high - begin] = array[low - part.begin : high - part.begin]
    return out


def _damaged(url: str, what: str) -> InputError:
    return InputError(f"checkpoint {url} is damaged ({what}): delete it to resume from the one before")
