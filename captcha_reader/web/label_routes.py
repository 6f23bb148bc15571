"""What the script of the tab Label asks for: pictures to label, and what was answered.

GET  /labels/{set}/next?count=4      the next pictures, with their readings, and the progress; `current`, the picture
                                     that is shown, with its reading by now; `tab`: whether another has taken over
GET  /labels/{set}/pictures/{id}     a picture, as PNG
POST /labels/{set}/claim             {"tab"}: this tab labels now
POST /labels/{set}/release           {"tab"}: this tab is closed
POST /labels/{set}/answer            {"tab", "do": "label" | "skip" | "unreadable" | "undo", "id", "text", "seconds",
                                     "offered", "model"}: the last two are `text` and `model` of what was shown
GET  /labels/{set}/sheet             certain readings, to accept at once
POST /labels/{set}/accept            {"tab", "ids", "texts", "wrong"}: `texts` of `ids`, as they were shown
GET  /labels/{set}/export?form=zip   the labeled pictures; `parquet` or `zip`
"""

from __future__ import annotations

import asyncio
import io
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

from captcha_reader.errors import UserError
from captcha_reader.images import open_image
from captcha_reader.labeling.records import Item, Progress, TakenOverError
from captcha_reader.web.html import without_paths
from captcha_reader.web.labels import Desk, Labels

MAX_AHEAD = 8  # pictures that a page may ask for at once


class Answer(BaseModel):
    """One action of the person who labels."""

    tab: str = Field(max_length=64)
    do: Literal["label", "skip", "unreadable", "undo"]
    id: str = Field("", max_length=64)
    text: str = Field("", max_length=200)
    seconds: float | None = Field(None, ge=0, le=1e6, allow_inf_nan=False)
    offered: str | None = Field(None, max_length=200)
    model: int = Field(0, ge=0, le=1000)


class Accepted(BaseModel):
    """A sheet of certain readings that was looked at."""

    tab: str = Field(max_length=64)
    ids: list[Annotated[str, Field(max_length=64)]] = Field(max_length=64)
    texts: list[Annotated[str, Field(max_length=200)]] | None = Field(None, max_length=64)
    wrong: list[Annotated[str, Field(max_length=64)]] = Field(default_factory=list, max_length=64)


class Claim(BaseModel):
    """A tab that labels from now on."""

    tab: str = Field(max_length=64)


def label_router(labels: Labels) -> APIRouter:
    """The routes, for the app that has the page."""
    router = APIRouter(prefix="/labels", include_in_schema=False)

    def desk_of(id_: str) -> Desk:
        try:
            return labels.open(id_)
        except UserError as error:
            raise HTTPException(404, without_paths(error)) from None

    def state(desk: Desk, count: int) -> dict[str, Any]:
        items = [describe_item(item) for item in desk.session.next(count)]
        sheet = len(desk.session.sheet())
        return {"items": items, "progress": describe_progress(desk.session.progress()), "sheet": sheet} | {
            "said": without_paths(desk.said),
            "model": desk.model,
            "scheme": desk.scheme,
            "read": desk.session.has_readings,
        }

    async def answered(work: Any, *arguments: Any) -> Response:
        """Off the event loop: it writes to the disk."""
        try:
            return JSONResponse(await asyncio.to_thread(work, *arguments))
        except TakenOverError as error:
            return JSONResponse({"error": str(error), "status": 409, "taken_over": True}, 409)
        except UserError as error:
            return refused(422, error)

    @router.get("/{set_}/next")
    async def next_items(
        set_: str,
        count: Annotated[int, Query(ge=1, le=MAX_AHEAD)] = 4,
        current: Annotated[str, Query(max_length=64)] = "",
        tab: Annotated[str, Query(max_length=64)] = "",
    ) -> Response:
        def work() -> dict[str, Any]:
            desk = desk_of(set_)
            if tab:
                desk.session.check_tab(tab)
            shown = {"current": describe_item(desk.session.item(current))} if current else {}
            return shown | state(desk, count)

        return await answered(work)

    @router.get("/{set_}/pictures/{id_}")
    async def picture(set_: str, id_: str) -> Response:
        def encode() -> bytes:
            path = desk_of(set_).session.item(id_).path
            buffer = io.BytesIO()
            open_image(path).save(buffer, "PNG")
            return buffer.getvalue()

        try:
            data = await asyncio.to_thread(encode)
        except UserError as error:
            return refused(404, error)
        return Response(data, media_type="image/png", headers={"cache-control": "private, max-age=3600"})

    @router.post("/{set_}/claim")
    async def claim(set_: str, asked: Annotated[Claim, Body()]) -> Response:
        def work() -> dict[str, Any]:
            desk = desk_of(set_)
            return {"took_over": desk.session.claim(asked.tab), **state(desk, 4)}

        return await answered(work)

    @router.post("/{set_}/release")
    async def release(set_: str, asked: Annotated[Claim, Body()]) -> Response:
        def work() -> dict[str, Any]:
            desk_of(set_).session.release(asked.tab)
            return {}

        return await answered(work)

    @router.post("/{set_}/answer")
    async def answer(set_: str, given: Annotated[Answer, Body()]) -> Response:
        def work() -> dict[str, Any]:
            desk = desk_of(set_)
            session = desk.session
            back = None
            if given.do == "label":
                shown = None if given.offered is None else (given.offered, given.model)
                session.answer(given.id, given.text, given.tab, given.seconds, shown)
            elif given.do == "skip":
                session.skip(given.id, given.tab)
            elif given.do == "unreadable":
                session.unreadable(given.id, given.tab)
            else:
                back = session.undo(given.tab)
            labels.touched(desk)
            return {"undone": back, **state(desk, 4)}

        return await answered(work)

    @router.get("/{set_}/sheet")
    async def sheet(set_: str) -> Response:
        return await answered(lambda: {"items": [describe_item(item) for item in desk_of(set_).session.sheet()]})

    @router.post("/{set_}/accept")
    async def accept(set_: str, given: Annotated[Accepted, Body()]) -> Response:
        def work() -> dict[str, Any]:
            desk = desk_of(set_)
            kept = desk.session.accept(given.ids, given.wrong, given.tab, given.texts)
            labels.touched(desk)
            return {"accepted": kept, **state(desk, 4)}

        return await answered(work)

    @router.get("/{set_}/export")
    async def export(request: Request, set_: str, form: Literal["zip", "parquet"] = "zip") -> Response:
        def work() -> Path:
            with tempfile.NamedTemporaryFile(suffix=f".{form}", delete=False) as file:
                path = Path(file.name)
            try:
                desk_of(set_).session.export(path, form)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            return path

        try:
            path = await asyncio.to_thread(work)
        except UserError as error:
            return refused(422, error)
        return FileResponse(path, filename=f"{set_}.{form}", background=BackgroundTask(path.unlink))

    return router


def refused(status: int, error: UserError) -> Response:
    """Why not, without the folders of this machine."""
    return JSONResponse({"error": without_paths(error), "status": status}, status)


def describe_item(item: Item) -> dict[str, Any]:
    """A picture to label, for the script."""
    return {
        "id": item.id,
        "name": item.name,
        "text": item.text,
        "confidence": round(item.confidence, 4),
        "model": item.model,
        "chars": [round(p, 3) for p in item.char_confidences],
    }


def describe_progress(progress: Progress) -> dict[str, Any]:
    """Where a set stands, for the script."""
    return {
        "pictures": progress.pictures,
        "typed": progress.typed,
        "measured": progress.measured,
        "accepted": progress.accepted,
        "skipped": progress.skipped,
        "unreadable": progress.unreadable,
        "corrected": progress.corrected,
        "curve": [
            {"labels": point.labels, "accuracy": point.accuracy, "interval": point.interval, "n": point.measured}
            for point in progress.curve
        ],
        "corrections": [
            {"labels": row.labels, "corrected": row.corrected, "typed": row.typed} for row in progress.corrections
        ],
        "advice": progress.advice.text,
        "stop": progress.advice.stop,
    }
