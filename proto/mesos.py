"""Mesos drivers that can be trusted: pymesos with the defects of its last release (0.3.15) mended.

This module is all that the rest of Mesograd knows of pymesos.
"""

from proto.mesos_errors import CallFailed, CallRefused, MesosError, NotConnected
from proto.mesos_executor import Executor, ExecutorDriver
from proto.mesos_scheduler import Scheduler, SchedulerDriver

__all__ = [
    "CallFailed",
    "CallRefused",
    "Executor",
    "ExecutorDriver",
    "MesosError",
    "NotConnected",
    "Scheduler",
    "SchedulerDriver",
]
