"""Which checkpoints stay, on a local directory and on stores that know no renaming."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from compute import InputError, checkpoint
from compute.checkpoint import MANIFEST, PARAMETERS
from compute.retention import Pruner, Retention
from proto.checkpoint_pb2 import Checkpoint


class WriteCut(OSError):
    """The writer dies in the middle of a file."""


class HalvingStore(MemoryFileSystem):
    """A store without renames whose listings are cached, and that keeps half of a file whose writer dies."""

    protocol = "halving"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]
    dies_at = ""  #: the end of the name of the file whose writer dies
    deaths = 0

    def pipe_file(self, path: str, value: bytes, **kwargs: Any) -> None:
        if type(self).dies_at and path.endswith(type(self).dies_at):
            type(self).deaths += 1
            super().pipe_file(path, value[: len(value) // 2], **kwargs)
            raise WriteCut("the writer died")
        super().pipe_file(path, value, **kwargs)

    def mv(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("this store cannot rename")


@pytest.fixture(params=["path", "file", "memory", "halving"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    fsspec.register_implementation("halving", HalvingStore, clobber=True)
    HalvingStore.dies_at = ""
    kind = request.param
    yield {"path": str(tmp_path / "c"), "file": f"file://{tmp_path}/c"}.get(kind, f"{kind}://bucket/{tmp_path.name}")
    if kind in ("memory", "halving"):
        fsspec.filesystem(kind).store.clear()


def write(place: str, step: int, number: int) -> None:
    target = checkpoint.step_url(place, step)
    arrays = {PARAMETERS: np.full(6, step, dtype=np.float32)}
    parts = [checkpoint.write_part(target, begin, begin + 3, {PARAMETERS: arrays[PARAMETERS][:3]}) for begin in (0, 3)]
    checkpoint.write_manifest(target, Checkpoint(step=step, number=number, parameters=6, parts=parts))


def load_newest(place: str) -> int:
    url = checkpoint.newest(place)
    assert url is not None
    manifest = checkpoint.read_manifest(url)
    checkpoint.check(url, manifest, "", 6, {})
    values = checkpoint.load_slice(url, manifest, 0, 6)[PARAMETERS]
    assert values.tolist() == [manifest.step] * 6
    return int(manifest.step)


@pytest.mark.parametrize(
    ("retention", "left"),
    [
        (Retention(), [6, 7, 8, 9, 10]),
        (Retention(keep=1), [10]),
        (Retention(keep=2, keep_every=4), [4, 8, 9, 10]),
        (Retention(keep=None), list(range(1, 11))),
    ],
)
def test_the_newest_stay_and_every_kth(place: str, retention: Retention, left: list[int]) -> None:
    pruner = Pruner(place, retention)
    for number in range(1, 11):
        write(place, 10 * number, number)
        if number == 6:
            pruner = Pruner(place, retention)  # a restarted server knows only what lies there
        pruner.prune()
        assert load_newest(place) == 10 * number
    assert checkpoint.steps(place) == [10 * number for number in left]


def test_remains_go_and_what_is_being_written_stays(place: str) -> None:
    for step in (10, 20, 40):
        target = checkpoint.step_url(place, step)
        checkpoint.write_part(target, 0, 3, {PARAMETERS: np.zeros(3, dtype=np.float32)})
    write(place, 30, 1)
    assert Pruner(place, Retention()).prune(unfinished={20}) == [10]
    assert checkpoint.steps(place) == [20, 30, 40]
    assert load_newest(place) == 30


def test_a_deletion_cut_short_leaves_no_checkpoint_behind(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(place, 10, 1)
    write(place, 20, 2)

    def die(url: str) -> None:
        raise InputError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr("compute.retention.delete_directory", die)
        with pytest.raises(InputError, match="killed here"):
            Pruner(place, Retention(keep=1)).prune()
    assert not checkpoint.is_complete(checkpoint.step_url(place, 10))
    assert load_newest(place) == 20
    assert Pruner(place, Retention(keep=1)).prune() == [10]


@pytest.mark.parametrize("file", ["slice-0-3.bin", "slice-3-6.bin", MANIFEST])
def test_half_a_file_in_a_store_without_renames_is_never_loaded(tmp_path: Path, file: str) -> None:
    fsspec.register_implementation("halving", HalvingStore, clobber=True)
    place = f"halving://bucket/{tmp_path.name}"
    write(place, 10, 1)
    HalvingStore.dies_at, deaths = file, HalvingStore.deaths
    with pytest.raises(InputError, match="the writer died"):
        write(place, 20, 2)
    HalvingStore.dies_at = ""
    assert HalvingStore.deaths == deaths + 1
    assert load_newest(place) == 10
    write(place, 20, 2)  # as the replay does
    assert load_newest(place) == 20
    fsspec.filesystem("halving").store.clear()


def test_what_a_store_has_got_since_it_was_listed_is_seen(tmp_path: Path) -> None:
    """s3fs and others remember listings in the process; other processes write there, too."""
    place = f"memory://bucket/{tmp_path.name}"
    calls = []
    fs = fsspec.filesystem("memory")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(fs), "invalidate_cache", lambda self, path=None: calls.append(path))
        write(place, 10, 1)
        assert load_newest(place) == 10
    assert calls
    fs.store.clear()


@pytest.mark.parametrize("wrong", [{"keep": 0}, {"keep": True}, {"keep": 1.5}, {"keep_every": -1}, {"keep_every": "2"}])
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must be a whole number"):
        Retention(**wrong).check()
