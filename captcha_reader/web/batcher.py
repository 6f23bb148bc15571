"""Pictures of requests that arrive together are read together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from captcha_reader.files import available_cores
from captcha_reader.web.limits import Limits, Refused
from captcha_reader.web.models import Models
from captcha_reader.web.uploads import check_picture

if TYPE_CHECKING:
    from predict import CaptchaPredictor, Prediction, View

PATIENCE = 0.004  # seconds that a batch waits for pictures which are being decoded


@dataclass(eq=False)
class _Job:
    """One request on its way: pictures in, a future of their readings."""

    predictor: CaptchaPredictor
    views: list[View]
    future: Future[list[Prediction]]


class Batcher:
    """Reads the pictures of all requests, those that arrive together in one forward pass.

    A request is decoded in a small pool of threads and then waits for the one thread that reads. While that thread is
    busy, what has been decoded gathers and makes up the next batch; a lone request does not wait for others.

    Args:
        models: where predictors come from.
        limits: of queue and batch.
    """

    def __init__(self, models: Models, limits: Limits | None = None) -> None:
        self.models, self.limits = models, limits or Limits()
        self.waiting = 0  # pictures admitted and not answered
        self.batches = 0  # forward passes so far
        self._decoding = 0  # requests in the pool
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(max_workers=max(2, available_cores()), thread_name_prefix="decode")
        self._thread: threading.Thread | None = None

    def submit(self, pictures: Sequence[tuple[str, bytes]], model: str | None = None) -> Future[list[Prediction]]:
        """Queue pictures, each with what to call it in a message; the future gives their readings in order.

        The future raises `UserError`, as a rule `Refused`, where the model or a picture cannot be used.

        Raises:
            Refused: 503, the queue is full.
        """
        with self._changed:
            if self.waiting + len(pictures) > self.limits.queue:
                raise Refused(503, "too many pictures are waiting to be read: try again in a second")
            self.waiting += len(pictures)
            self._decoding += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="read", daemon=True)
                self._thread.start()
        future: Future[list[Prediction]] = Future()
        future.set_running_or_notify_cancel()  # from now on nobody can cancel it under the hands of a thread
        future.add_done_callback(lambda _: self._leave(len(pictures)))
        self._pool.submit(self._decode, pictures, model, future)
        return future

    def _leave(self, count: int) -> None:
        with self._changed:
            self.waiting -= count

    def _decode(self, pictures: Sequence[tuple[str, bytes]], model: str | None, future: Future) -> None:
        job = None
        try:
            predictor = self.models.predictor(model)
            # One after the other: of a request's pictures only one is in memory in full size.
            views = [predictor.view(check_picture(data, name, self.limits.pixels)) for name, data in pictures]
            job = _Job(predictor, views, future)
        except BaseException as error:
            future.set_exception(error)
        finally:
            with self._changed:
                self._decoding -= 1
                if job is not None:
                    self._jobs.append(job)
                self._changed.notify_all()

    def _next(self) -> list[_Job]:
        """The jobs of the next batch, all for the same model, at least one."""
        with self._changed:
            while not self._jobs:
                self._changed.wait()
            end = time.monotonic() + PATIENCE
            while self._decoding and sum(len(j.views) for j in self._jobs) < self.limits.batch:
                left = end - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            taken = [self._jobs.popleft()]
            count = len(taken[0].views)
            while self._jobs and self._jobs[0].predictor is taken[0].predictor:
                if count + len(self._jobs[0].views) > self.limits.batch:
                    break
                count += len(self._jobs[0].views)
                taken.append(self._jobs.popleft())
            return taken

    def _run(self) -> None:
        while True:
            jobs = self._next()
            try:
                readings = jobs[0].predictor.read([view for job in jobs for view in job.views])
            except BaseException as error:
                for job in jobs:
                    job.future.set_exception(error)
                continue
            self.batches += 1
            start = 0
            for job in jobs:
                job.future.set_result(readings[start : start + len(job.views)])
                start += len(job.views)
