"""Log lines that machines read: one JSON object a line."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from pipeline.credential import without_credentials
from pipeline.stages.variant import Job, Unit


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: `time` (ISO 8601, UTC), `level`, `message`, and what `fields` adds.

    Characters beyond ASCII are escaped, so that no id or message can begin a line or drive a terminal, and addresses
    lose their credentials.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": without_credentials(record.getMessage()),
            **{
                name: without_credentials(value) if isinstance(value, str) else value
                for name, value in getattr(record, "fields", {}).items()
            },
        }
        if record.exc_info:
            line["traceback"] = without_credentials(self.formatException(record.exc_info))
        return json.dumps(line, default=str)


def unit_fields(job: Job, unit: Unit) -> dict[str, Any]:
    """What every line about a unit says of it."""
    variant = job.variants[unit.variant]
    return {
        "run": job.run,
        "stage": variant.stage,
        "model": variant.model,
        "variant": unit.variant,
        "unit": f"{unit.start}-{unit.stop}",
        "samples": len(unit),
    }


class WorkerLog:
    """The log of a worker, on its standard error, which Ray keeps: `worker-….err` in the session's `logs`."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._logger = logging.getLogger("heatline.worker")
        self._logger.propagate = False
        if not self._logger.handlers:
            handler = logging.StreamHandler()
            handler.setFormatter(JsonLines())
            self._logger.addHandler(handler)

    def note_failure(self, unit: Unit, error: BaseException) -> None:
        """An attempt at a unit ended with an error: a line with its traceback."""
        fields = {"event": "failed", **unit_fields(self._job, unit)}
        message = f"{unit.variant} [{unit.start}, {unit.stop}): {error}"
        self._logger.error("%s", message, exc_info=error, extra={"fields": fields})
