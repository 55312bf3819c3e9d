"""Settings of the tests of scheduler/."""

from hypothesis import settings

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("scheduler", deadline=None)
settings.load_profile("scheduler")
