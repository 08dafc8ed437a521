"""The process of a command: it stops within seconds, and every fault ends in a sentence."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from mitolume.errors import MitolumeError, disk_fault, shorten

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 1.2  # seconds that a command has to tidy up when it is stopped
again = ""  # how to repeat this command so that it goes on


def run_safely(command: Callable[[], Any]) -> None:
    """Run a command; every fault ends in a sentence and status 1, not in a traceback."""
    stop = _Stop()
    try:
        if any("@" in word for word in sys.argv):
            from mitolume.io.readers import address  # takes a while to import

            _ = [address(word) for word in sys.argv[1:]]  # refuses passwords
        command()
    except MitolumeError as error:
        _fail(str(error))
    except _Stopped:
        stop.end(stop.number)
    except BrokenPipeError:
        sys.exit(1)
    except MemoryError as error:
        _fail(f"too little memory ({shorten(error)}); close other programs, or use smaller images")
    except Exception as error:  # the last place where a person could be shown a sentence
        _fail(disk_fault(error) or _report(error))
    finally:
        stop.close()


def keep_buffers() -> None:
    """Keep the memory of most buffers, here and in the processes of this command, with glibc.

    By default it is handed back to the system after every layer of a network, and cleared page by
    page before the next: prediction took a tenth more of the processor's time. Keeping the largest
    as well would leave too many gaps.
    """
    mmap_threshold, trim_threshold = 2**27, 2**31 - 1
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(mmap_threshold)
    os.environ["MALLOC_TRIM_THRESHOLD_"] = str(trim_threshold)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, mmap_threshold)  # the numbers are those of <malloc.h>
        libc.mallopt(-1, trim_threshold)


class _Stopped(BaseException):
    """Ctrl-C or a request to end, as an exception that no library catches."""


class _Stop:
    """Ends the command within two seconds of SIGINT or SIGTERM, whatever it is doing.

    The signal becomes an exception, so that what is half done is tidied up. A long call into C
    puts that off, and processes may take long to end: a thread, woken by Python's own handler of
    signals, then ends all at once. Nothing is lost by that, as results get their names last.
    """

    def __init__(self) -> None:
        self.number = 0
        self._ending = threading.Lock()
        woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self._before = {one: signal.signal(one, self._raise) for one in _SIGNALS}
        self._fd = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(woken,), daemon=True).start()
        self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable

    def _unraisable(self, fault: Any) -> None:
        """Say nothing of a stop that came while an object was deleted: the thread ends all."""
        if fault.exc_type is not _Stopped:
            self._hook(fault)

    def _raise(self, number: int, _: object) -> None:
        if not self.number:
            self.number = number
            raise _Stopped

    def _watch(self, woken: socket.socket) -> None:
        with woken:
            while received := woken.recv(1):
                if received[0] in _SIGNALS:
                    time.sleep(_PATIENCE)
                    self.end(received[0])

    def end(self, number: int) -> NoReturn:
        """Leave with one sentence and no process behind."""
        self._ending.acquire()  # for good: only one thread gets further
        for child in multiprocessing.active_children():
            child.kill()
        print(
            "mitolume: stopped; finished results are kept. Repeat the command"
            f"{again} to continue",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        os._exit(128 + number)

    def close(self) -> None:
        """Let signals do what they did before."""
        sys.unraisablehook = self._hook
        signal.set_wakeup_fd(self._fd)
        for one, handler in self._before.items():
            signal.signal(one, handler)
        self._wake.close()


def _report(error: Exception) -> str:
    """Keep what is needed to mend a fault of the program, and ask for it."""
    fault = f"unexpected {type(error).__name__}: {shorten(error)}. This is a fault of mitolume; "
    try:
        with tempfile.NamedTemporaryFile(
            "w", suffix=".txt", prefix="mitolume-", delete=False, encoding="utf-8"
        ) as f:
            traceback.print_exc(file=f)
    except OSError:  # no room even for that
        return f"{fault}please report it"
    return f"{fault}please report it with {f.name}"


def _fail(sentence: str) -> None:
    print(f"mitolume: {sentence}", file=sys.stderr)
    sys.exit(1)
