"""`python -m executor`, with stand_in_task.py in the place of `python -m executor.task`."""

import sys
from pathlib import Path

from executor.mesos_executor import main

sys.exit(main([sys.executable, str(Path(__file__).with_name("stand_in_task.py"))]))
