"""A scripted task: says hello, and what it does then is in the job's spec, a pickled dict.

{"steps": N, "step_s": seconds, "fail": {"role": "worker", "kind": 1, "summary": ...}, "exit": {"worker": 3},
 "eat_mb": {"worker": 500}}
"""

import asyncio
import json
import os
import pickle
import socket
import sys

import grpc.aio

from proto import control_pb2 as pb


class Done(Exception):
    pass


async def main():
    given = json.loads(sys.stdin.readline())
    with open(f"task-{os.getpid()}", "w") as file:
        file.write(given["task_id"])
    role = given["role"]
    hello = pb.Hello(
        task_id=given["task_id"],
        role=pb.SERVER if role == "server" else pb.WORKER,
        address=given.get("bind", ""),
        host=socket.gethostname(),
        pid=os.getpid(),
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
    )
    async with grpc.aio.insecure_channel(given["control"]) as channel:
        call = channel.stream_stream(
            "/mesograd.Control/Attach",
            request_serializer=pb.TaskMessage.SerializeToString,
            response_deserializer=pb.DriverMessage.FromString,
        )(metadata=(("mesograd-secret", given["secret"]),))
        await call.write(pb.TaskMessage(hello=hello))
        script, training, code = {}, [], 0
        while (message := await call.read()) is not grpc.aio.EOF:
            body = message.WhichOneof("body")
            if body == "job":
                script = pickle.loads(message.job.spec)
                ballast = b"\1" * (script.get("eat_mb", {}).get(role, 0) << 20)  # noqa: F841  # held until the end
                code = script.get("exit", {}).get(role, 0)
                if code:
                    break
                fail = script.get("fail")
                if fail and fail["role"] == role:
                    failure = pb.Failure(kind=fail["kind"], summary=fail["summary"], detail=fail.get("detail", ""))
                    await call.write(pb.TaskMessage(failure=failure))
            elif body == "membership" and role == "server" and "server-0" in given["task_id"]:
                script["attempt"] = message.membership.attempt
                training.append(asyncio.create_task(train(call, script, message.membership)))
            elif body == "stop" and not script.get("deaf"):
                if not message.stop.checkpoint:
                    break
                script["stopping"] = True
        await call.done_writing()
    return code


async def finish(call, reason, step):
    finished = pb.Finished(reason=reason, step=step, epoch=1, weights_sha256="ab" * 32)
    finished.metrics["Top1Accuracy"] = 0.875
    await call.write(pb.TaskMessage(finished=finished))


async def train(call, script, membership):
    # Not cancelled from outside: to cancel a write cancels the whole stream.
    for step in range(1, script["steps"] + 1):
        await asyncio.sleep(script.get("step_s", 0.01))
        if script["attempt"] != membership.attempt:
            return
        if script.get("stopping"):
            await finish(call, pb.Finished.STOPPED, step - 1)
            return
        report = pb.StepReport(
            step=step,
            epoch=1,
            loss=1 / step,
            samples=16,
            learning_rate=0.1,
            seconds=0.01,
            workers=membership.workers,
            attempt=membership.attempt,
        )
        await call.write(pb.TaskMessage(progress=pb.Progress(steps=[report])))
    await finish(call, pb.Finished.END_WHEN, script["steps"])


sys.exit(asyncio.run(main()))
