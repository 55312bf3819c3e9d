"""A Mesos executor for tests: each task is a child process running executor.task of this folder."""

import base64
import os
import signal
import subprocess
import sys
import threading

from proto.mesos_executor import Executor, ExecutorDriver


class ScriptedExecutor(Executor):
    def __init__(self):
        self.children = {}
        self.asked_to_end = set()

    def launchTask(self, driver, task):
        task_id = task["task_id"]["value"]
        command = [sys.executable, "-m", "executor.task", task_id]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        self.children[task_id] = child
        child.stdin.write(base64.b64decode(task["data"]) + b"\n")
        child.stdin.flush()
        driver.sendStatusUpdate({"task_id": task["task_id"], "state": "TASK_RUNNING"})
        threading.Thread(target=self.wait, args=(driver, task["task_id"], child), daemon=True).start()

    def wait(self, driver, task_id, child):
        code = child.wait()
        state = "TASK_FINISHED" if code == 0 else "TASK_FAILED"
        if task_id["value"] in self.asked_to_end:
            state = "TASK_KILLED"
        message = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        driver.sendStatusUpdate({"task_id": task_id, "state": state, "message": message})

    def killTask(self, driver, task_id, kill_policy=None):
        child = self.children.get(task_id["value"])
        self.asked_to_end.add(task_id["value"])
        if child and child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)

    def shutdown(self, driver):
        for child in self.children.values():
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
        driver.wait_acknowledged(5)
        driver.stop()


ExecutorDriver(ScriptedExecutor()).run()
