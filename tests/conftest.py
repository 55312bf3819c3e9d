"""What holds for every test."""

import atexit
import os
import shutil
import signal
import tempfile

from hypothesis import settings

# Continuous integration says whether a change is sound, so it draws the same examples every time; everybody else's runs
# look for new ones.
settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

# Whatever starts the tests in the background may have them ignore these, and every process that they start would
# inherit that; the tests of Ctrl-C and of a closed terminal need what a terminal gives. A handler is not inherited.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

# No test writes into the state directory of whoever runs it.
_state = tempfile.mkdtemp(prefix="mesograd-test-state-")
atexit.register(shutil.rmtree, _state, ignore_errors=True)
os.environ["MESOGRAD_STATE"] = os.path.join(_state, "jobs")
