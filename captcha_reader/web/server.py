"""The server's start and its one way to end: by Ctrl-C, by SIGTERM or SIGHUP, or because something failed."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from captcha_reader.errors import UserError
from captcha_reader.web.limits import Limits

M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
GRACE_SECONDS = 3  # for answers that are under way at the end
TRIM_SECONDS = 15.0  # between two returns of freed memory to the system
ENDING_SECONDS = 10.0  # after which the process goes, whatever still runs


class Stopped(BaseException):
    """The process was asked to end; `code` is its exit code."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


@contextmanager
def ending_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP become exceptions, as Ctrl-C is one, so that whatever is to be done at the end is done.

    Outside the main thread, which alone hears signals, this does nothing.
    """
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise Stopped(number)

    # SIGHUP stays ignored where `nohup` has asked for it.
    before = {n: signal.signal(n, stop) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def listen(host: str, port: int) -> socket.socket:
    """Take the port before the seconds that the page takes to build.

    Raises:
        UserError: it cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=512)
    except OverflowError:
        raise UserError(f"there is no port {port}: --port is 0 to 65535") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise UserError(
            f"cannot listen on {host}:{port} ({reason}): stop what uses it, or name another --port or --host"
        ) from None


def serve(app: Any, listener: socket.socket, limits: Limits) -> None:
    """Answer until the process is asked to end.

    Raises:
        Stopped, KeyboardInterrupt: it was.
    """
    import uvicorn

    from captcha_reader.web.connections import protocol_class

    _raise_file_limit(limits.connections)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol_class(limits),
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=int(limits.header_seconds),
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    server.run(sockets=[listener])


def _is_news(said: logging.LogRecord) -> bool:
    """The connections of open pages are cut at the end, which is no error; neither is what a client sends amiss."""
    if said.exc_info and isinstance(said.exc_info[1], asyncio.CancelledError):
        return False
    return not str(said.msg).startswith(("Invalid HTTP", "Unsupported upgrade", "No supported WebSocket", "Cancel "))


def end_soon() -> None:
    """End the process some seconds from now, even where a thread of it never ends."""

    def leave() -> None:
        sys.stderr.flush()
        os._exit(1)

    timer = threading.Timer(ENDING_SECONDS, leave)
    timer.daemon = True
    timer.start()


def give_memory_back() -> None:
    """Make glibc return the memory of a picture to the system once it is freed, in threads too.

    By itself it keeps blocks of up to 32 MB for later, in each thread that ever had one: some 300 MB a thread after a
    few large pictures. Smaller blocks leave gaps, which are given back now and then. Elsewhere than on glibc this does
    nothing.
    """
    with suppress(OSError, AttributeError, ValueError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 20)
        trim = libc.malloc_trim

        def keep_trimming() -> None:
            while True:
                time.sleep(TRIM_SECONDS)
                trim(0)

        threading.Thread(target=keep_trimming, name="trim", daemon=True).start()


def _raise_file_limit(connections: int) -> None:
    """Let the process open as many files as its connections take, where the system allows it."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 2 * connections + 512
        if soft != resource.RLIM_INFINITY and soft < wanted:
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
