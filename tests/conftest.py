"""What holds for every test."""

import signal

# Whatever starts the tests in the background may have them ignore SIGINT, and every process that they start would
# inherit that; the tests of Ctrl-C need what a terminal gives.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
