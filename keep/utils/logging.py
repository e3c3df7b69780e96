"""Messages on the console."""

import logging
import sys

from tqdm import tqdm

log = logging.getLogger("keep")


def to_console(level: int = logging.INFO) -> None:
    """Print the ``keep`` logger's messages to standard output, above the progress bar if there is one."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tqdm.write(self.format(record), file=sys.stdout)
            sys.stdout.flush()

    log.handlers = [h for h in log.handlers if isinstance(h, logging.FileHandler)]
    handler = Handler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(level)
    log.propagate = False
