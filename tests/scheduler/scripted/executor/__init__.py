"""Stands in for the executor package on test agents: tasks that speak the control channel and train nothing."""
