"""The driver of a job: a Mesos framework that places, launches and watches its tasks."""
