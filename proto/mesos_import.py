"""Imports pymesos without what it does to the process that imports it.

pymesos installs a SIGINT handler when it is imported, which fails outside the main thread and, within it, replaces
the program's own; it also gives the logger "pymesos" a handler and a level. Here neither happens.
"""

import logging
import signal
import threading
from typing import Any


def _import_pymesos() -> Any:
    importing_thread = threading.get_ident()
    set_handler = signal.signal

    def keep_handler(signum: Any, handler: Any) -> Any:
        if threading.get_ident() == importing_thread and getattr(handler, "__module__", "").startswith("pymesos"):
            return signal.getsignal(signum)
        return set_handler(signum, handler)

    logger = logging.getLogger("pymesos")
    handlers, level = list(logger.handlers), logger.level
    signal.signal = keep_handler  # type: ignore[assignment]
    try:
        import pymesos
        import pymesos.executor
        import pymesos.interface
        import pymesos.scheduler
        import pymesos.utils
    finally:
        signal.signal = set_handler
    for handler in list(logger.handlers):
        if handler not in handlers:
            logger.removeHandler(handler)
    logger.setLevel(level)
    return pymesos


pymesos = _import_pymesos()
