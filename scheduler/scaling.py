"""`mesograd scale`: tells the driver of a running job how many workers or servers are wanted."""

from __future__ import annotations

import grpc

from proto import control_pb2
from scheduler import job_record
from scheduler.control import SECRET_KEY, SERVICE
from scheduler.driver import CONTROL
from scheduler.job_states import job_states
from scheduler.outcome import UsageError
from scheduler.state_store import JobStates, StateError

CALL_TIMEOUT_S = 10.0


def scale(job_id: str, workers: int = 0, servers: int = 0, colocated: bool = False, place: str = "") -> str:
    """What the driver of the job says to it.

    Args:
        job_id: the job.
        workers, servers: wanted; 0: as before.
        colocated: as many servers as agents have workers. One of the three.
        place: where jobs' state is kept, as `job_states` takes it.

    Raises:
        UsageError: no such job runs, or its driver does not answer or refuses.
    """
    states = job_states(place)
    try:
        address, secret = _driver(states, job_id)
    except StateError as error:
        raise UsageError(f"{error}; see `mesograd jobs`") from None
    finally:
        states.close()
    try:
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary(
                f"/{SERVICE}/Scale",
                request_serializer=control_pb2.ScaleRequest.SerializeToString,
                response_deserializer=control_pb2.ScaleReply.FromString,
            )
            request = control_pb2.ScaleRequest(workers=workers, servers=servers, colocated=colocated)
            reply = call(request, timeout=CALL_TIMEOUT_S, metadata=((SECRET_KEY, secret),))
    except grpc.RpcError as error:
        code = error.code()
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise UsageError(f"the driver of {job_id} does not answer at {address}") from None
        raise UsageError(f"the driver of {job_id} refused: {error.details() or code.name}") from None
    if not reply.accepted:
        raise UsageError(f"{job_id} cannot be scaled: {reply.text}")
    return f"{job_id}: {reply.text}"


def _driver(states: JobStates, job_id: str) -> tuple[str, str]:
    """Address of the control channel and the job's secret."""
    if job_id not in states.ids():
        raise UsageError(f"there is no job {job_id!r}; see `mesograd jobs`")
    store = states.store(job_id)
    try:
        records = store.load()
        record, ended, driver = job_record.load(records), job_record.finished(records), store.driver()
    finally:
        store.close()
    if ended is not None:
        raise UsageError(f"job {job_id} has ended; see `mesograd jobs`")
    address = records.get(CONTROL, {}).get("address", "")
    if not driver.lives or not address:
        raise UsageError(f"job {job_id} has no driver at the moment: mesograd run --attach {job_id}")
    return str(address), record.plan.secret
