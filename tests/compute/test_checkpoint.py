"""A checkpoint loads as it was written, and a damaged one never loads."""

from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compute import InputError, checkpoint
from compute.checkpoint import MANIFEST, PARAMETERS
from executor.step_plan import slice_bounds
from proto.checkpoint_pb2 import Checkpoint

TRAINING = {"batch_size": 8, "seed": 1}


def write(url: str, parameters: int, servers: int, step: int = 7) -> tuple[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(step)
    arrays = {name: rng.standard_normal(parameters).astype(np.float32) for name in (PARAMETERS, "momentum")}
    target = checkpoint.step_url(url, step)
    parts = []
    for k in range(servers):
        begin, end = slice_bounds(parameters, servers, k)
        parts.append(checkpoint.write_part(target, begin, end, {n: a[begin:end] for n, a in arrays.items()}))
    manifest = Checkpoint(step=step, fingerprint="abc", parameters=parameters, training=TRAINING, parts=parts)
    checkpoint.write_manifest(target, manifest)
    return target, arrays


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 7))
def test_any_number_of_servers_reads_what_any_other_wrote(
    tmp_path_factory: pytest.TempPathFactory, parameters: int, writers: int, readers: int
) -> None:
    url, arrays = write(str(tmp_path_factory.mktemp("c")), parameters, writers)
    manifest = checkpoint.read_manifest(url)
    checkpoint.check(url, manifest, "abc", parameters, TRAINING)
    for k in range(readers):
        begin, end = slice_bounds(parameters, readers, k)
        loaded = checkpoint.load_slice(url, manifest, begin, end)
        assert set(loaded) == set(arrays)
        for name, array in loaded.items():
            assert array.tobytes() == arrays[name][begin:end].tobytes()


def test_the_newest_complete_one_is_found(tmp_path: Path) -> None:
    assert checkpoint.newest(str(tmp_path / "none")) is None
    assert checkpoint.newest(str(tmp_path)) is None
    for step in (9, 100, 11):
        write(str(tmp_path), 10, 2, step)
    unfinished = tmp_path / "step-00000200"
    checkpoint.write_part(str(unfinished), 0, 10, {PARAMETERS: np.zeros(10, np.float32)})
    assert checkpoint.newest(str(tmp_path)) == str(tmp_path / "step-00000100")


def test_other_file_systems_serve_as_well() -> None:
    url, arrays = write("memory://checkpoints", 30, 2)
    assert checkpoint.newest("memory://checkpoints") == url
    loaded = checkpoint.load_slice(url, checkpoint.read_manifest(url), 0, 30)
    assert loaded[PARAMETERS].tobytes() == arrays[PARAMETERS].tobytes()
    fsspec.filesystem("memory").rm("/checkpoints", recursive=True)


def test_a_file_cut_short_anywhere_is_found(tmp_path: Path) -> None:
    url, _ = write(str(tmp_path), 6, 2)
    manifest = checkpoint.read_manifest(url)
    file = Path(url) / manifest.parts[1].file
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(InputError, match=f"has {size} of {len(whole)} bytes.*delete it"):
            checkpoint.load_slice(url, manifest, 0, 6)


def test_a_changed_byte_a_missing_file_and_a_cut_manifest_are_found(tmp_path: Path) -> None:
    url, _ = write(str(tmp_path), 6, 2)
    manifest = checkpoint.read_manifest(url)
    file = Path(url) / manifest.parts[0].file
    whole = bytearray(file.read_bytes())
    whole[3] ^= 1
    file.write_bytes(whole)
    with pytest.raises(InputError, match="the digest of"):
        checkpoint.load_slice(url, manifest, 0, 6)
    file.unlink()
    with pytest.raises(InputError, match="is missing"):
        checkpoint.load_slice(url, manifest, 0, 6)
    text = (Path(url) / MANIFEST).read_bytes()
    for size in range(len(text) - 1):
        (Path(url) / MANIFEST).write_bytes(text[:size])
        with pytest.raises(InputError, match=f"the digest of {MANIFEST} differs"):
            checkpoint.read_manifest(url)


def test_another_model_or_training_is_refused(tmp_path: Path) -> None:
    url, _ = write(str(tmp_path), 6, 2)
    manifest = checkpoint.read_manifest(url)
    with pytest.raises(InputError, match="another model"):
        checkpoint.check(url, manifest, "xyz", 6, TRAINING)
    with pytest.raises(InputError, match="another model"):
        checkpoint.check(url, manifest, "abc", 7, TRAINING)
    with pytest.raises(InputError, match="trained with batch_size=8, now it is 9"):
        checkpoint.check(url, manifest, "abc", 6, TRAINING | {"batch_size": 9})
    partial = Checkpoint()
    partial.CopyFrom(manifest)
    del partial.parts[1:]
    with pytest.raises(InputError, match="no file covers element 3"):
        checkpoint.check(url, partial, "abc", 6, TRAINING)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write"):
        checkpoint.write_part(str(tmp_path / "file" / "step-1"), 0, 1, {PARAMETERS: np.zeros(1, np.float32)})
    with pytest.raises(InputError, match="cannot use the URL"):
        checkpoint.newest("nosuchscheme://bucket/x")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
