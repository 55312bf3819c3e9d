"""What holds for every test."""

import signal

# Whatever starts the tests in the background may have them ignore these, and every process that they start would
# inherit that; the tests of Ctrl-C and of a closed terminal need what a terminal gives. A handler is not inherited.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)
