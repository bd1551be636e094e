"""Requests to stop a run: Ctrl-C, SIGTERM, a closed terminal."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class StoppedWaiting(RuntimeError):
    """Somebody asked to stop while processes waited for a place."""


class StopRequest:
    """Whether somebody asked the run to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._at_once = False

    def ask(self, number: int, frame: object) -> None:
        """Take note of a signal; a second one interrupts whatever is going on."""
        again, self.signal = self.signal is not None, signal.Signals(number)
        if again or self._at_once:
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Where nothing can be lost: the first request interrupts, too."""
        if self.signal is not None:
            raise KeyboardInterrupt
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Ctrl-C, SIGTERM and a closed terminal ask the run to stop."""
    request = StopRequest()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup wants it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, request.ask) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
