"""A time limit for the forward passes of a model: one that never ends must not stop those of others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from captcha_reader.web.limits import Refused

IDLE_SECONDS = 10.0  # after which the thread ends: a model that is used no more must not be kept in memory by it


class TimedBackend:
    """The backend of a predictor, whose passes run one after the other in a thread of its own and are waited for only
    so long. Where one takes longer, all are refused until it ends.

    Args:
        backend: to ask; its method `stop`, where it has one, ends a pass that takes too long.
        name: of the model, for messages.
        seconds: that a pass may take.
    """

    def __init__(self, backend: Any, name: str, seconds: float) -> None:
        self.backend, self.name, self.seconds = backend, name, seconds
        self.overdue = False
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()  # None: to rest
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def log_probs(self, pixels: np.ndarray) -> np.ndarray:
        """As `CaptchaPredictor.log_probs`.

        Raises:
            Refused: 504, it takes too long; 422, it fails or gives no numbers.
        """
        log_probs = self._within(self.backend.log_probs, pixels)
        if getattr(log_probs, "ndim", 0) != 3 or len(log_probs) != len(pixels):
            raise Refused(422, f"the model {self.name} gives no reading for each picture: choose another")
        if np.isnan(log_probs).any():
            raise Refused(422, f"the model {self.name} gives values that are no numbers: choose another")
        return log_probs

    def attention(self, pixels: np.ndarray) -> np.ndarray | None:
        """As `CaptchaPredictor.attention`.

        Raises:
            Refused: as `log_probs`.
        """
        return self._within(self.backend.attention, pixels)

    def rest(self) -> None:
        """End its thread once what was asked is answered; the next call begins another."""
        with self._lock:
            if self._thread is not None:
                self._calls.put(None)

    def _within(self, function: Callable[[np.ndarray], Any], pixels: np.ndarray) -> Any:
        call = _Call(function, pixels)
        with self._lock:
            if self.overdue:
                raise self._late()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"read {self.name}", daemon=True)
                self._thread.start()
            self._calls.put(call)
        while not call.begun.wait(0.2):
            if self.overdue:
                raise self._late()
        try:
            return call.answer.result(self.seconds)
        except TimeoutError:
            with self._lock:
                self.overdue = not call.answer.done()
            if hasattr(self.backend, "stop"):
                self.backend.stop()
            raise self._late() from None

    def _late(self) -> Refused:
        return Refused(504, f"the model {self.name} takes longer than {self.seconds:g} seconds: choose another")

    def _run(self) -> None:
        while True:
            call = None
            with suppress(Empty):
                call = self._calls.get(timeout=IDLE_SECONDS)
            if call is None:
                with self._lock:
                    if self._calls.empty():
                        self._thread = None
                        return
                continue
            if not self.overdue:
                call.run(self.name)
            with self._lock:
                self.overdue = False
            del call  # its pictures


class _Call:
    def __init__(self, function: Callable[[np.ndarray], Any], pixels: np.ndarray) -> None:
        self.function, self.pixels = function, pixels
        self.begun = threading.Event()
        self.answer: Future[Any] = Future()

    def run(self, name: str) -> None:
        self.begun.set()
        try:
            self.answer.set_result(self.function(self.pixels))
        except Refused as error:
            self.answer.set_exception(error.bare())
        except Exception as error:
            self.answer.set_exception(Refused(422, f"the model {name} cannot read this ({type(error).__name__})"))
