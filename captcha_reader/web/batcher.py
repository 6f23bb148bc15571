"""Pictures of requests that arrive together are read together."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from captcha_reader.errors import UserError
from captcha_reader.files import available_cores
from captcha_reader.reading.constraints import Constraints
from captcha_reader.reading.prediction import Prediction
from captcha_reader.transforms import View
from captcha_reader.web.lanes import SMALL_BYTES, is_small, stand_back
from captcha_reader.web.limits import Limits, Refused
from captcha_reader.web.models import Models, Predictor
from captcha_reader.web.uploads import Pixels, check_picture

PATIENCE = 0.004  # seconds that a batch waits for pictures which are being decoded
BULK_EVERY = 4  # batches, one is of bulk where small requests keep the model busy
IDLE_SECONDS = 10.0  # after which a thread that has nothing to read ends

log = logging.getLogger("captcha_reader")


@dataclass(frozen=True)
class Reading:
    """A picture that was read.

    Attributes:
        prediction: what it says.
        size: (width, height) of the picture.
        view: of it, as the network saw it.
        predictor: that read it.
    """

    prediction: Prediction
    size: tuple[int, int]
    view: View
    predictor: Predictor


class Ticket(Future[list[Reading | Refused]]):
    """The readings of a request in order, an error in place of a picture that cannot be read."""

    dropped = False

    def drop(self) -> None:
        """Nobody waits for it any more: what is not begun is left undone."""
        self.dropped = True


@dataclass(eq=False)
class _Job:
    """One request on its way."""

    pictures: deque[tuple[str, bytes | Refused]]
    model: str | None
    ticket: Ticket
    pixels: Pixels
    bulk: bool
    since: float = field(default_factory=time.monotonic)  # it waits
    constraints: Constraints | None = None
    predictor: Predictor | None = None
    seen: list[tuple[View, tuple[int, int]] | Refused] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(not isinstance(view, Refused) for view in self.seen)


class _Lane:
    """Decoded requests that wait for one model: small ones, and bulk.

    Args:
        batch: pictures of one forward pass; a request with more has a pass of its own.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self._waiting: dict[bool, deque[_Job]] = {False: deque(), True: deque()}
        self._small = 0  # batches of small requests since the last of bulk

    def __bool__(self) -> bool:
        return any(self._waiting.values())

    @property
    def count(self) -> int:
        """Pictures of small requests."""
        return sum(job.count for job in self._waiting[False])

    def add(self, job: _Job) -> None:
        """Behind the others of its kind."""
        self._waiting[job.bulk].append(job)

    def take(self) -> list[_Job]:
        """The next batch: one kind alone, so that nobody waits for the passes that another's pictures need."""
        small, bulk = self._waiting[False], self._waiting[True]
        chosen = bulk if bulk and (not small or self._small >= BULK_EVERY - 1) else small
        self._small = 0 if chosen is bulk else self._small + 1
        taken = [chosen.popleft()]
        count = taken[0].count
        while chosen and count + chosen[0].count <= self.batch:
            count += chosen[0].count
            taken.append(chosen.popleft())
        return taken


class Batcher:
    """Reads the pictures of all requests, those that arrive together in one forward pass.

    A few threads decode, a picture of each request in turn; then a request waits for the thread that reads with its
    model. While that is busy, what has been decoded gathers and makes up the next batch; a lone request does not wait
    for others. A model that takes long keeps no other waiting.

    Requests with many or large pictures are bulk: one thread of low priority decodes them, and they are read when no
    small request waits, or in every `BULK_EVERY`th batch.

    Args:
        models: where predictors come from.
        limits: of queue and batch.
    """

    def __init__(self, models: Models, limits: Limits | None = None) -> None:
        self.models, self.limits = models, limits or Limits()
        self.waiting = 0  # pictures admitted and not answered
        self._bulk = 0  # of these, in requests that were bulk from the start
        self.batches = 0  # forward passes so far
        self._clients: Counter[str] = Counter()  # pictures waiting, by address
        self._admitted: dict[Ticket, _Job] = {}
        self._decoding = 0  # small requests on their way to a lane
        self._undecoded: dict[bool, deque[_Job]] = {False: deque(), True: deque()}  # small requests, and bulk
        self._decoders: Counter[bool] = Counter()  # threads for each
        self._moved = 0.0  # when bulk last got on
        self._lanes: dict[int, _Lane] = {}  # by the identity of their predictor
        self._changed = threading.Condition()

    @property
    def oldest(self) -> float:
        """Seconds that the request which has waited longest has waited, bulk since any of it got on; 0.0 where none
        waits."""
        with self._changed:
            since = [max(job.since, self._moved) if job.bulk else job.since for job in self._admitted.values()]
        return time.monotonic() - min(since) if since else 0.0

    def submit(
        self,
        pictures: Sequence[tuple[str, bytes | Refused]],
        model: str | None = None,
        client: str = "",
        constraints: Constraints | None = None,
        bulk: bool = False,
    ) -> Ticket:
        """Queue pictures; the ticket gives their readings in order.

        Args:
            pictures: each with what to call it in a message.
            model: name of a model on offer; the first by default.
            client: address that they came from.
            constraints: what is known of their texts.
            bulk: they are many, or come from a zip; a large one among them makes the request bulk anyway.

        The ticket raises `UserError`, as a rule `Refused`, where the model cannot be used.

        Raises:
            Refused: 503, the queue is full, or this client's part of it, or that of bulk.
        """
        count = len(pictures)
        ticket = Ticket()
        ticket.set_running_or_notify_cancel()  # from now on nobody can cancel it under the hands of a thread
        bulk = bulk or any(isinstance(d, bytes) and len(d) > SMALL_BYTES for _, d in pictures)
        job = _Job(deque(pictures), model, ticket, Pixels(self.limits.request_pixels), bulk, constraints=constraints)
        with self._changed:
            if self.waiting + count > self.limits.queue:
                raise Refused(503, "too many pictures are waiting to be read: try again in a second")
            if self._clients[client] + count > self.limits.client_queue:
                raise Refused(503, "too many pictures of yours are waiting to be read: try again in a second")
            if bulk and self._bulk and self._bulk + count > self.limits.bulk_queue:
                raise Refused(503, "too many large or many pictures are waiting to be read: try again in a second")
            self.waiting += count
            self._bulk += count if bulk else 0
            self._clients[client] += count
            self._admitted[ticket] = job
            self._decoding += not bulk
            self._queue(job)
        ticket.add_done_callback(lambda done: self._leave(ticket, client, count, bulk))
        return ticket

    def _queue(self, job: _Job) -> None:
        """For a thread that decodes; one more is started where there may be one."""
        self._undecoded[job.bulk].append(job)
        if self._decoders[job.bulk] < (1 if job.bulk else max(2, available_cores())):
            self._decoders[job.bulk] += 1
            threading.Thread(target=self._decode_all, args=(job.bulk,), name="decode", daemon=True).start()
        self._changed.notify_all()

    def _leave(self, ticket: Ticket, client: str, count: int, bulk: bool) -> None:
        with self._changed:
            self.waiting -= count
            self._bulk -= count if bulk else 0
            self._clients[client] -= count
            if self._clients[client] <= 0:
                del self._clients[client]
            self._admitted.pop(ticket, None)

    # ------------------------------------------------------------------------------------------------ decoding

    def _decode_all(self, bulk: bool) -> None:
        if bulk:
            stand_back()
        waiting = self._undecoded[bulk]
        while True:
            with self._changed:
                while not waiting:
                    if not self._changed.wait(IDLE_SECONDS) and not waiting:
                        self._decoders[bulk] -= 1
                        return
                job = waiting.popleft()
            try:
                done = self._decode_one(job)
            except BaseException as error:
                done = True
                _refuse(job, error, "a picture cannot be prepared")
            with self._changed:
                if bulk:
                    self._moved = time.monotonic()
                elif done or job.bulk:  # which may have turned out only now
                    self._decoding -= 1
                if not done:
                    self._queue(job)  # behind the others: each request has its turn
                elif not job.ticket.done():
                    self._hand_over(job)
                self._changed.notify_all()
            del job  # else its pictures live until the next one comes

    def _decode_one(self, job: _Job) -> bool:
        """Decode the next picture of a job, unless it turns out to be bulk; gives whether it was the last."""
        if job.ticket.dropped:
            raise Refused(499, "the client is gone")
        if job.predictor is None:
            job.predictor = self.models.predictor(job.model)
        if not job.pictures:
            return True
        name, data = job.pictures[0]
        if not job.bulk and isinstance(data, bytes) and not is_small(data):
            job.bulk = True
            return False
        job.pictures.popleft()
        if isinstance(data, Refused):
            job.seen.append(data)
        else:
            try:
                picture = check_picture(data, name, self.limits.pixels, job.pixels)
                job.seen.append((job.predictor.view(picture), picture.size))
            except Refused as error:
                job.seen.append(error.bare())
            except UserError as error:
                job.seen.append(Refused(422, str(error)))
        return not job.pictures

    def _hand_over(self, job: _Job) -> None:
        """To the thread that reads with its model; one is started where there is none."""
        key = id(job.predictor)
        if key not in self._lanes:
            self._lanes[key] = _Lane(self.limits.batch)
            threading.Thread(target=self._read_all, args=(key,), name="read", daemon=True).start()
        self._lanes[key].add(job)

    # ------------------------------------------------------------------------------------------------ reading

    def _read_all(self, key: int) -> None:
        """Read what one model is asked for, until nothing comes for a while."""
        while jobs := self._next(key):
            try:
                self._read(jobs)
            except BaseException as error:
                self._fail(jobs, error)
            del jobs

    def _fail(self, jobs: Sequence[_Job], error: BaseException) -> None:
        """What cannot be read together is read one request after the other, where it may be one's fault alone."""
        alone = [job for job in jobs if not job.ticket.done()]
        if len(alone) == 1 or (isinstance(error, Refused) and error.status == 504):
            for job in alone:
                _refuse(job, error)
            return
        if not isinstance(error, UserError):
            log.error("a batch cannot be read, its requests are read alone", exc_info=error)
        for job in alone:
            try:
                self._read([job])
            except BaseException as own:
                _refuse(job, own)

    def _next(self, key: int) -> list[_Job]:
        """The jobs of the next batch; none where the thread may end."""
        lane = self._lanes[key]
        with self._changed:
            while not lane:
                if not self._changed.wait(IDLE_SECONDS) and not lane:
                    del self._lanes[key]
                    return []
            end = time.monotonic() + PATIENCE
            while self._decoding and lane.count < self.limits.batch:
                left = end - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return lane.take()

    def _read(self, jobs: Sequence[_Job]) -> None:
        for job in jobs:
            if job.ticket.dropped:
                job.ticket.set_exception(Refused(499, "the client is gone"))
        jobs = [job for job in jobs if not job.ticket.done()]
        views = [seen[0] for job in jobs for seen in job.seen if not isinstance(seen, Refused)]
        predictor = jobs[0].predictor if jobs else None
        if views and predictor is not None:
            given = [job.constraints for job in jobs for seen in job.seen if not isinstance(seen, Refused)]
            found = predictor.read(views, constraints=given) if any(given) else predictor.read(views)
            if len(found) != len(views) or not all(math.isfinite(p.confidence) for p in found):
                raise Refused(422, "the model gives no reading that is a number for each picture: choose another")
            self.batches += 1
        else:
            found = []
        readings = iter(found)
        for job in jobs:
            assert job.predictor is not None
            answer: list[Reading | Refused] = []
            for seen in job.seen:
                if isinstance(seen, Refused):
                    answer.append(seen)
                else:
                    answer.append(Reading(next(readings), seen[1], seen[0], job.predictor))
            job.ticket.set_result(answer)


def _refuse(job: _Job, error: BaseException, what: str = "a reading failed") -> None:
    """Answer a request with an error; of one of ours, the answer says that the terminal tells what."""
    if not isinstance(error, UserError):
        log.error(what, exc_info=error)
    job.ticket.set_exception(_bare(error))


def _bare(error: BaseException) -> UserError:
    """What is said of an error, without its traceback, whose frames would keep the pictures in memory."""
    if isinstance(error, Refused):
        return error.bare()
    if isinstance(error, UserError):
        return Refused(422, str(error))
    return Refused(500, "something went wrong on the server: its terminal says what")
