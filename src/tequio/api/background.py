"""A run that goes on in a thread of this process while its rounds are looked at, and can be stopped
between two pieces of work.
"""

import atexit
import threading
from collections.abc import Callable

from tequio.app.stages import Outcome, Watch

LOOK = 0.05  # seconds between two looks at a run that says nothing


class Stopped(Exception):
    """The run was asked to stop.

    It leaves the run as a power cut would, and is not shown to anybody.
    """


class Background:
    """Work in a thread. Python stops it in an orderly way when it ends.

    Args:
        work: what is done; it calls the watch that it is given before each piece of work.
    """

    def __init__(self, work: Callable[[Watch], Outcome]) -> None:
        self._work = work
        self._stop = threading.Event()
        self._news = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._go, name="tequio-run", daemon=True)
        atexit.register(self.stop)
        self._thread.start()

    def _go(self) -> None:
        try:
            self._work(self._watch)
        except Stopped:
            pass
        except BaseException as error:  # raised where somebody waits for the run
            self._error = error
        finally:
            atexit.unregister(self.stop)
            self._news.set()

    def _watch(self, stage: str, what: str, done: int, of: int) -> None:
        self._news.set()
        if self._stop.is_set():
            raise Stopped

    @property
    def going(self) -> bool:
        """Return whether the work goes on."""
        return self._thread.is_alive()

    def pause(self) -> None:
        """Wait until there may be news."""
        try:
            self._news.wait(1.0)
            self._news.clear()
        except KeyboardInterrupt:
            self.stop()
            raise

    def until(self, begun: Callable[[], bool]) -> None:
        """Wait until `begun` holds or the work has ended. Raises what the work raised."""
        try:
            while self.going and not begun():
                self._thread.join(LOOK)
        except KeyboardInterrupt:
            self.stop()
            raise
        if not self.going:
            self.join()

    def join(self) -> None:
        """Wait for the end, and raise what the work raised. Ctrl-C stops the work."""
        try:
            self._thread.join()
        except KeyboardInterrupt:
            self.stop()
            raise
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Ask the work to stop, and wait until it has."""
        self._stop.set()
        self._thread.join()
