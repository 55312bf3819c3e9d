"""Parts of checkpoints are written beside the training, from a copy that nothing can change."""

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest

from compute import InputError, checkpoint
from executor import checkpointing
from executor.checkpointing import Checkpointing
from executor.parameter_slice import ParameterSlice
from proto.checkpoint_pb2 import Checkpoint, CheckpointPart
from tests.executor.checkpoint_writer import slices, train_step

PARAMETERS = 3000


def loaded(url: str, held: ParameterSlice, part: CheckpointPart) -> dict[str, np.ndarray]:
    manifest = Checkpoint(parameters=PARAMETERS, parts=[part])
    return checkpoint.load_slice(url, manifest, held.begin, held.end)


def test_a_step_waits_for_the_copy_and_for_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_copy, may_write, released = threading.Event(), threading.Event(), asyncio.Event()
    copy, write_part = checkpointing._copy, checkpoint.write_part

    def copy_when_told(*args: object) -> None:
        assert may_copy.wait(10)
        copy(*args)  # type: ignore[arg-type]

    def write_when_told(*args: object) -> object:
        assert may_write.wait(10)
        return write_part(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpointing, "_copy", copy_when_told)
    monkeypatch.setattr(checkpoint, "write_part", write_when_told)

    async def work() -> None:
        held = slices(PARAMETERS)[0]
        assert train_step(held, PARAMETERS)
        held.commit(1)
        before = {"parameters": held.parameters.copy(), "momentum": held.update.state["momentum"].copy()}
        task = Checkpointing(released.set).write(held, str(tmp_path))
        assert not train_step(held, PARAMETERS), "the step was applied to what is being copied"
        may_copy.set()
        await released.wait()
        assert train_step(held, PARAMETERS), "the step waits for the file"
        assert held.parameters.tobytes() != before["parameters"].tobytes()
        may_write.set()
        arrays = loaded(str(tmp_path), held, await task)
        assert arrays.keys() == before.keys()
        for name, array in arrays.items():
            assert array.tobytes() == before[name].tobytes()

    asyncio.run(work())


def test_buffers_are_used_again_and_a_third_checkpoint_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write, released = threading.Event(), asyncio.Event()
    write_part, places = checkpoint.write_part, []

    def write_when_told(url: str, begin: int, end: int, arrays: dict[str, np.ndarray]) -> object:
        places.append(arrays["parameters"].ctypes.data)
        assert may_write.wait(10)
        return write_part(url, begin, end, arrays)

    monkeypatch.setattr(checkpoint, "write_part", write_when_told)

    async def work() -> None:
        held = slices(PARAMETERS)[0]
        writer, tasks, kept = Checkpointing(released.set), [], []
        for step in range(1, 7):
            while not train_step(held, PARAMETERS):
                if step == 4:  # two are being written, the third has no room
                    assert not may_write.is_set()
                    may_write.set()
                released.clear()
                await released.wait()
            held.commit(step)
            kept.append(held.parameters.tobytes())
            tasks.append(writer.write(held, str(tmp_path / str(step))))
        assert may_write.is_set(), "the third checkpoint did not wait"
        for step, task in enumerate(tasks, 1):
            assert loaded(str(tmp_path / str(step)), held, await task)["parameters"].tobytes() == kept[step - 1]
        assert len(set(places)) == checkpointing.BUFFERS < len(places)

    asyncio.run(work())


def test_a_place_that_cannot_be_written_releases_the_slice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    async def work() -> None:
        held, released = slices(PARAMETERS)[0], asyncio.Event()
        writer = Checkpointing(released.set)
        for _ in range(checkpointing.BUFFERS + 1):
            with pytest.raises(InputError, match="cannot write"):
                await writer.write(held, str(tmp_path / "file" / "c"))
        assert train_step(held, PARAMETERS)

    asyncio.run(work())
