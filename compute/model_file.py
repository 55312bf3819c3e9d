"""Saved models: one file with what a network is made of and its parameters (proto/model.proto). Never unpickled."""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from compute.checkpoint import PARAMETERS, is_complete, load_slice, read_manifest
from compute.description import describe, restore
from compute.errors import InputError
from compute.layout import fingerprint, parameter_layout
from compute.nn.module import Module
from compute.spec import Specs, SpecsLike, TensorSpec, as_specs
from compute.storage import read_file, write_file
from proto import model_pb2 as pb

MAGIC = b"MESOGRAD"
FORMAT = 1
_ALIGNMENT_BYTES = 64
_PREFIX_BYTES = 16


@dataclass(frozen=True)
class SavedModel:
    """A network with its parameters.

    Attributes:
        module: the network.
        inputs: what it takes.
        parameters: float32 (P,), the flat vector of compute.parameter_layout.
        metrics: of the last validation before it was saved.
    """

    module: Module
    inputs: Specs
    parameters: NDArray[np.float32]
    metrics: Mapping[str, float] = field(default_factory=dict)


def save_model(
    url: str | os.PathLike[str],
    module: Module,
    inputs: SpecsLike,
    parameters: NDArray[np.float32],
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Writes a model to a file or fsspec URL.

    Args:
        parameters: float32 (P,), the flat vector, such as compute.Program.parameters.

    Raises:
        InputError: the sizes differ, the model holds a function, or the place cannot be written to.
    """
    specs = as_specs(inputs)
    layout = parameter_layout(module, specs)
    size = sum(info.size for info in layout)
    if parameters.shape != (size,):
        raise InputError(f"the model has {size} parameters, got an array of shape {parameters.shape}")
    data = np.ascontiguousarray(parameters, dtype="<f4").data.cast("B")
    header = pb.ModelFile(version=_version(), model=describe(module), fingerprint=fingerprint(module, specs))
    header.inputs.extend(pb.TensorSpec(shape=spec.shape, dtype=spec.dtype) for spec in specs)
    for info in layout:
        begin, end = 4 * info.offset, 4 * (info.offset + info.size)
        digest = hashlib.sha256(data[begin:end]).digest()
        header.tensors.add(
            name=info.name, shape=info.shape, dtype="<f4", offset=begin, bytes=end - begin, sha256=digest
        )
    for name, value in (metrics or {}).items():
        header.metrics[name] = value
    head = header.SerializeToString(deterministic=True)
    prefix = MAGIC + FORMAT.to_bytes(4, "little") + len(head).to_bytes(4, "little")
    padding = bytes(-(len(prefix) + len(head)) % _ALIGNMENT_BYTES)
    write_file(url, (prefix, head, padding, data))


def load_model(url: str | os.PathLike[str], custom: Iterable[type[Module]] = ()) -> SavedModel:
    """Reads a model that `save_model` wrote, or the one in a checkpoint (a directory `step-...`).

    Args:
        custom: classes of the user's own layers in it.

    Raises:
        InputError: the file is missing, cut short, damaged, of another format, or holds an unknown layer.
    """
    if is_complete(os.fspath(url)):
        return _from_checkpoint(os.fspath(url), custom)
    header, data = read_header(url, read_file(url))
    module = restore(header.model, custom)
    inputs = _specs(header.inputs)
    if fingerprint(module, inputs) != header.fingerprint:
        raise InputError(f"{os.fspath(url)} was saved by version {header.version}, whose layers have other parameters")
    return SavedModel(module, inputs, _tensors(os.fspath(url), header, data), dict(header.metrics))


def load_parameters(url: str | os.PathLike[str], module: Module, inputs: SpecsLike) -> NDArray[np.float32]:
    """The parameters of a saved model or of a checkpoint, for a network made in code.

    Raises:
        InputError: as load_model, or the parameters' names or shapes differ; the first that does is named.
    """
    if is_complete(os.fspath(url)):
        manifest = read_manifest(os.fspath(url))
        if manifest.fingerprint != fingerprint(module, inputs):
            raise InputError(f"{os.fspath(url)} is a checkpoint of another model, of {manifest.parameters} parameters")
        return load_slice(os.fspath(url), manifest, 0, manifest.parameters)[PARAMETERS]
    header, data = read_header(url, read_file(url))
    wanted = [(info.name, info.shape) for info in parameter_layout(module, inputs)]
    found = [(info.name, tuple(info.shape)) for info in header.tensors]
    for ours, theirs in zip(wanted, found, strict=False):
        if ours != theirs:
            raise InputError(
                f"{os.fspath(url)} is of another model: it has {theirs[0]} {theirs[1]} where this one has "
                f"{ours[0]} {ours[1]}"
            )
    if len(wanted) != len(found):
        raise InputError(f"{os.fspath(url)} has {len(found)} parameter tensors, this model has {len(wanted)}")
    return _tensors(os.fspath(url), header, data)


def _from_checkpoint(url: str, custom: Iterable[type[Module]]) -> SavedModel:
    manifest = read_manifest(url)
    if not manifest.HasField("model"):
        raise InputError(
            f"the model of {url} holds something that only code can make; "
            "make it in code and use compute.load_parameters"
        )
    module, inputs = restore(manifest.model, custom), _specs(manifest.inputs)
    if fingerprint(module, inputs) != manifest.fingerprint:
        raise InputError(f"{url} was written by another version of mesograd, whose layers have other parameters")
    parameters = load_slice(url, manifest, 0, manifest.parameters)[PARAMETERS]
    return SavedModel(module, inputs, parameters, dict(manifest.progress.metrics))


def _specs(messages: Iterable[pb.TensorSpec]) -> Specs:
    return as_specs([TensorSpec(tuple(spec.shape), spec.dtype) for spec in messages])


def read_header(url: str | os.PathLike[str], content: bytes) -> tuple[pb.ModelFile, memoryview]:
    """The header and the bytes of the tensors of a file's content.

    Raises:
        InputError: it is no model file, or cut short.
    """
    place = os.fspath(url)
    if content[: len(MAGIC)] != MAGIC:
        raise InputError(f"{place} is not a saved model; compute.save_model writes such files")
    if len(content) < _PREFIX_BYTES:
        raise InputError(f"{place} is cut short: it has {len(content)} bytes; fetch the file again")
    version = int.from_bytes(content[8:12], "little")
    if version != FORMAT:
        raise InputError(f"{place} has format {version}, this version of mesograd reads format {FORMAT}")
    length = int.from_bytes(content[12:16], "little")
    start = _PREFIX_BYTES + length
    if len(content) < start:
        raise InputError(f"{place} is cut short: it has {len(content)} bytes; fetch the file again")
    header = pb.ModelFile()
    try:
        header.ParseFromString(content[_PREFIX_BYTES:start])
    except DecodeError:
        raise InputError(f"{place} is damaged: its header does not parse; fetch the file again") from None
    return header, memoryview(content)[start + -start % _ALIGNMENT_BYTES :]


def _tensors(place: str, header: pb.ModelFile, data: memoryview) -> NDArray[np.float32]:
    """The flat vector; every tensor's place and digest are checked."""
    offset = 0
    for info in header.tensors:
        if info.dtype != "<f4" or info.offset != offset or info.bytes != 4 * math.prod(info.shape):
            raise InputError(f"{place} is damaged: {info.name} is not where it should be; fetch the file again")
        part = data[offset : offset + info.bytes]
        if len(part) != info.bytes:
            raise InputError(f"{place} is cut short in {info.name}; fetch the file again")
        if hashlib.sha256(part).digest() != info.sha256:
            raise InputError(f"{place} is damaged: the digest of {info.name} differs; fetch the file again")
        offset += info.bytes
    return np.frombuffer(data[:offset], dtype="<f4").astype(np.float32)


def _version() -> str:
    try:
        return importlib.metadata.version("mesograd")
    except importlib.metadata.PackageNotFoundError:
        return "a checkout"
