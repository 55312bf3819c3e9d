"""What a parameter server does with callers and frames that it should not serve: refuse, and go on as before."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from proto.exchange_pb2 import Grant, Header, Join, Push, Refusal, Want
from proto.frames import EXCHANGE_METHOD, SECRET_KEY, decode, encode, grpc_options
from tests.data_files import write_subset
from tests.executor.harness import ScriptedDriver, training
from tests.executor.test_training_faults import make_spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_subset(tmp_path_factory.mktemp("data"), train=640, test=100)


async def talk(address: str, secret: str, frames: list[bytes], answers: int = 1) -> list[Header]:
    """Sends frames on a stream of its own, returns the first answers (fewer if the stream ends)."""
    async with grpc.aio.insecure_channel(address, options=grpc_options()) as channel:
        await asyncio.wait_for(channel.channel_ready(), 10)
        call: Any = channel.stream_stream(EXCHANGE_METHOD)(metadata=((SECRET_KEY, secret),))
        received: list[Header] = []
        for frame in frames:
            await call.write(frame)
        async with asyncio.timeout(10):
            while len(received) < answers and (frame := await call.read()) is not grpc.aio.EOF:
                header = decode(frame)[0]
                if not header.HasField("lane"):  # which this caller has no use for
                    received.append(header)
        call.cancel()
        return received


async def ready(driver: ScriptedDriver) -> tuple[str, str]:
    """Address of server 0 and the secret, once it serves: a worker that joins is granted a lease."""
    await driver.until(lambda: driver.attempt == 1)
    address, secret = driver.servers[0].address, driver._secret
    (grant,) = await talk(address, secret, [join(), encode(lease_request())])
    assert grant.grant.kind == Grant.TRAIN
    return address, secret


def join(attempt: int = 1) -> bytes:
    return encode(Header(attempt=attempt, join=Join(task_id="stranger")))


def lease_request() -> Header:
    header = Header(attempt=1)
    header.lease_request.SetInParent()
    return header


def test_no_call_is_served_without_the_secret(folder: Path, tmp_path: Path) -> None:
    async def work() -> None:
        async with training(make_spec(folder), tmp_path, workers=0, servers=1) as driver:
            address, secret = await ready(driver)
            for wrong in ("", "0" * 32, secret[:-1], secret.upper()):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await talk(address, wrong, [join()])
                assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED

    asyncio.run(work())


def test_stale_attempts_steps_and_nonsense_are_refused(folder: Path, tmp_path: Path) -> None:
    async def work() -> None:
        async with training(make_spec(folder), tmp_path, workers=0, servers=1) as driver:
            address, secret = await ready(driver)

            async def refusal(*frames: bytes) -> Refusal:
                (header,) = await talk(address, secret, list(frames))
                assert header.WhichOneof("body") == "refusal"
                return header.refusal

            stale = await refusal(join(), encode(Header(attempt=1, push=Push(step=0, last=True))))
            assert stale.code == Refusal.STALE_STEP
            for frames in (
                (b"",),
                (b"\x00" * 3,),
                (encode(Header(attempt=1, want=Want(version=0))),),  # does not say who it is
                (join(), encode(Header(attempt=1, grant=Grant()))),  # not for a server
                (join(), encode(Header(attempt=1))),
                (join(), encode(Header(attempt=1, push=Push(step=1, bytes=8)), b"12345678")),  # not the slice's size
                (join(), encode(Header(attempt=1, push=Push(step=99, bytes=4)), b"1234")),
                (join(), encode(Header(attempt=1, push=Push(step=1, bytes=1 << 60)), b"1234")),
                (join(), encode(Header(attempt=1, push=Push(step=1, level=9, bytes=4)), b"1234")),
            ):
                assert (await refusal(*frames)).code == Refusal.MALFORMED
            other = await refusal(join(), encode(Header(attempt=2, want=Want(version=0))))
            assert other.code == Refusal.STALE_ATTEMPT
            # None of it did any harm: the job runs to its end.
            driver.add_worker()
            await driver.until_finished()

    asyncio.run(work())
