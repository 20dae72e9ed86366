"""Entry point: an interruption is one line and exit status 130, also while libraries are being imported."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def main() -> None:
    """Runs the command line."""
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    try:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as a shell starts what runs in the background
            signal.signal(signal.SIGINT, interrupt)
        from .app import main as run

        run()
    except BaseException:
        # Libraries turn an interruption into their own errors.
        if not interrupted:
            raise
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
