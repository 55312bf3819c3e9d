"""`python -m executor`, with stand_in_task.py in the place of `python -m executor.task`.

It speaks with its agent through the proxy that the variable AGENT_PROXY names, if it is set.
"""

import os
import sys
from pathlib import Path

from executor.mesos_executor import main

if "AGENT_PROXY" in os.environ:
    os.environ["MESOS_AGENT_ENDPOINT"] = os.environ.pop("AGENT_PROXY")
sys.exit(main([sys.executable, str(Path(__file__).with_name("stand_in_task.py"))]))
