"""`python -m executor`, what a Mesos agent runs."""

import sys

from executor.mesos_executor import main

sys.exit(main())
