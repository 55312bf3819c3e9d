"""`mesograd scale`: tells the driver of a running job how many workers are wanted."""

from __future__ import annotations

from pathlib import Path

import grpc

from proto import control_pb2
from scheduler.control import SECRET_KEY, SERVICE
from scheduler.control_file import ControlFile, jobs_with_a_driver
from scheduler.outcome import UsageError

CALL_TIMEOUT_S = 10.0
_NAMED = 5


def scale(jobs: Path, job_id: str, workers: int) -> str:
    """What the driver of the job says to it.

    Args:
        jobs: state directory, one directory in it per job.
        job_id: the job, or the only beginning of a job's id.
        workers: wanted.

    Raises:
        UsageError: no such job runs here, or its driver does not answer or refuses.
    """
    known = jobs_with_a_driver(jobs)
    matching = [name for name in known if name == job_id] or [name for name in known if name.startswith(job_id)]
    point = ControlFile(jobs / matching[0]).load() if len(matching) == 1 else None
    if point is None:
        there = "several jobs" if len(matching) > 1 else "no job"
        named = ", ".join((matching or known)[:_NAMED]) or "none"
        raise UsageError(f"{there} of this name run on this machine as this user: {job_id!r}; there are: {named}")
    try:
        with grpc.insecure_channel(point.address) as channel:
            call = channel.unary_unary(
                f"/{SERVICE}/Scale",
                request_serializer=control_pb2.ScaleRequest.SerializeToString,
                response_deserializer=control_pb2.ScaleReply.FromString,
            )
            request = control_pb2.ScaleRequest(workers=workers)
            reply = call(request, timeout=CALL_TIMEOUT_S, metadata=((SECRET_KEY, point.secret),))
    except grpc.RpcError as error:
        code = error.code()
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            silent = f"the driver of {matching[0]} does not answer at {point.address}: was it killed?"
            raise UsageError(silent) from None
        raise UsageError(f"the driver of {matching[0]} refused: {error.details() or code.name}") from None
    if not reply.accepted:
        raise UsageError(f"{matching[0]} cannot be scaled: {reply.text}")
    return f"{matching[0]}: {reply.text}"
