"""GET /reports/{key}/report.html and report.json: what a measurement found, for who knows its key."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, HTTPException, Response

from captcha_reader.web.jobs import JobQueue
from captcha_reader.web.strength_job import StrengthJob

# The report has no script, and nothing is fetched for it.
HTML_HEADERS = {"content-security-policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'"}


def report_router(jobs: JobQueue) -> APIRouter:
    """The routes, for the app that has the page. Reports stay in memory as long as their jobs are remembered."""
    router = APIRouter(prefix="/reports", include_in_schema=False)

    @router.get("/{key}/{name}")
    def report(key: str, name: Literal["report.html", "report.json"]) -> Response:
        found = [job for job in jobs.jobs() if isinstance(job, StrengthJob) and job.key == key]
        data = found[0].reports.get(name) if found else None
        if data is None:
            raise HTTPException(404, "this report is gone: measure again")
        if name == "report.json":
            return Response(data, media_type="application/json")
        return Response(data, media_type="text/html; charset=utf-8", headers=HTML_HEADERS)

    return router
