"""What runs on the agents: the Mesos executor, workers and parameter servers."""
