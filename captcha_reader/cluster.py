"""One function over many shards: on a Ray cluster, or on this machine as a cluster of its own.

    pip install -r requirements-scale.txt
    python captcha_generator.py --engine ray ...
    python predict.py --engine ray --out FOLDER SHARDS...

Ray Data hands out the shards, gives those of a worker that died to another as often as it takes, and finds the cluster
by itself (the environment variable RAY_ADDRESS names another). docs/scaling.md says how to start one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from captcha_reader.errors import UserError
from captcha_reader.files import ROOT


def run_on_ray(work: Callable[[str], dict[str, Any]], items: Sequence[str]) -> Iterator[dict[str, Any]]:
    """`work(item)` for each item, on one core each, in any order; a dead worker's item is done again by another.

    Args:
        work: picklable, from a module that the workers can import; it leaves its result on a disk that all share, whole
            or not at all, so that doing it twice does no harm.
        items: as many pieces of work.

    Yields:
        What `work` returned: numbers and texts.

    Raises:
        UserError: Ray is not installed, or `work` raised a UserError.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")  # the progress bar is ours
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError("--engine ray needs Ray: pip install -r requirements-scale.txt") from None
    if not ray.is_initialized():
        # Workers run somewhere else in the file system, and import our modules from here.
        environment = {"env_vars": {"PYTHONPATH": str(ROOT)}}
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", runtime_env=environment)
        except (OSError, RuntimeError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            where = os.environ.get("RAY_ADDRESS", "here")
            raise UserError(f"there is no Ray cluster at {where} ({reason}): start one or mend RAY_ADDRESS") from None
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.from_items([{"item": item} for item in items], override_num_blocks=len(items))
    for row in rows.map(_Guarded(work), num_cpus=1).iter_rows():
        if message := row.pop("error"):
            raise UserError(message)
        yield row


class _Guarded:
    """Errors that are meant for the user come back as data: Ray would wrap them in its own, with a traceback."""

    def __init__(self, work: Callable[[str], dict[str, Any]]) -> None:
        self.work = work

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {**self.work(row["item"]), "error": ""}
        except UserError as error:
            return {"error": str(error)}
        except OSError as error:
            return {
                "error": f"a worker failed at {row['item']} ({error}): make room or mend its disk, and run it again"
            }
