"""The images behind a run, opened again from its record."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.data import Dataset, DatasetConfig
from pipeline.errors import FatalError
from pipeline.store import Output


def run_dataset(output: Output, record: dict[str, Any]) -> Dataset:
    """The data set that a run explained; its images are read from where they lay then.

    Args:
        output: the run's output, which keeps the data set's index.
        record: the run's record, `output.run()`.

    Raises:
        FatalError: the record does not say which data set, or its index is no longer there.
    """
    try:
        config = TypeAdapter[Any](DatasetConfig).validate_python(record["dataset"])
        index, seed = str(record["index"]), int(record["seed"])
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise FatalError(
            f"{output.uri}: the record of run {record.get('run', '?')} does not describe its data set "
            f"({_first_line(error)}); run the job again"
        ) from error
    if not output.exists(index):
        raise FatalError(f"{output.uri}: {index}, the list of the run's samples, is gone; run the job again")
    return Dataset(config, output.open_table(index), seed)


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc']) or 'dataset'}: {first['msg']}"
    return f"no {error}" if isinstance(error, KeyError) else str(error)
