"""The output folder: what runs committed, and how it is read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from pipeline.commit import CommitFolder, as_dataset
from pipeline.errors import FatalError
from pipeline.files import reading
from pipeline.filesystem import open_filesystem
from pipeline.record_shape import blank_record, record_trouble

if TYPE_CHECKING:
    import pyarrow.dataset as ds

IDENTITY = "heatline.json"
FORMAT = 1


def open_output(uri: str | Path, *, create: bool = False, missing_ok: bool = False) -> Output:
    """Open an output folder.

    Args:
        uri: a folder, or a URI such as `s3://bucket/prefix`.
        create: make the folder where there is none.
        missing_ok: where there is none, give an output that holds nothing, and make nothing.

    Returns:
        The output.

    Raises:
        FatalError: the folder is missing, holds something else, or was written by a newer format.
        RetryableError: the store does not answer.
    """
    text = str(uri)
    filesystem, root = open_filesystem(text)
    output = Output(filesystem, root, text if "://" in text else root)
    with reading(output.uri):
        if isinstance(filesystem, pafs.LocalFileSystem) and Path(root).is_file():
            raise FatalError(f"{output.uri}: is a file, an output is a folder")
        # The listing comes first: what a store says where it refuses one tells the reason.
        inside = {one.base_name for one in filesystem.get_file_info(pafs.FileSelector(root, allow_not_found=True))}
        if IDENTITY in inside:
            _check_identity(output)
            return output
        # Of a missing bucket, too, a store says no more than that nothing is there.
        bucket = root.split("/", 1)[0] if filesystem.type_name in ("s3", "gcs") else None
        if bucket and filesystem.get_file_info(bucket).type == pafs.FileType.NotFound:
            raise FatalError(f"{output.uri}: there is no such bucket")
    # What a run leaves behind that was killed while it made the folder does not count.
    if not all(name.startswith(IDENTITY) for name in inside):
        raise FatalError(f"{output.uri}: is not empty and is not a heatline output; name another folder")
    if create:
        output.write_bytes(IDENTITY, json.dumps({"format": FORMAT, "what": "output of heatline"}).encode())
    elif not missing_ok:
        raise FatalError(f"{output.uri}: no heatline output here")
    return output


def _check_identity(output: Output) -> None:
    try:
        identity = json.loads(output.read_bytes(IDENTITY))
        found = identity["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise FatalError(f"{output.uri}: its {IDENTITY} is not heatline's; name another folder") from error
    if found != FORMAT:
        raise FatalError(f"{output.uri}: written in format {found}, this version reads format {FORMAT}")


class Output(CommitFolder):
    """An output folder on a local disk or an object store. Opened with `open_output`."""

    def runs(self) -> list[str]:
        """Names of the runs, oldest first."""
        return sorted(name.removesuffix(".json") for name in self.names("runs") if name.endswith(".json"))

    def run(self, name: str | None = None) -> dict[str, Any]:
        """The record of a run: its spec, variants, timings and summary.

        Args:
            name: one of `runs()`; default: the latest.

        Raises:
            FatalError: there is no such run.
        """
        names = self.runs()
        if not names or (name is not None and name not in names):
            raise FatalError(
                f"{self.uri}: no run {name or 'yet'}" + (f"; there are {', '.join(names)}" if names else "")
            )
        return next(iter(self.records([name or names[-1]])))

    def records(
        self, names: Iterable[str], left_out: Callable[[str], object] | None = None
    ) -> Iterator[dict[str, Any]]:
        """The records of runs that are there, as `run` gives them.

        A run that found everything committed, as an earlier one had left it, holds little and names that one
        (`same_as`), whose record gives the rest.

        Args:
            names: the runs.
            left_out: is told, in a line, why a record cannot be read, and the others follow; default: it is an error.

        Raises:
            FatalError: a record is damaged or gone, or names one that is.
        """
        whole: dict[str, dict[str, Any]] = {}
        for name in names:
            try:
                record = self._whole_record(name, whole)
            except FatalError as error:
                if left_out is None:
                    raise
                left_out(str(error))
            else:
                yield record

    def _whole_record(self, name: str, whole: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """A run's record with what it leaves to another; `whole` keeps those that need none."""
        file = self.path(f"runs/{name}.json")
        try:
            record = self._record(name)
        except FileNotFoundError as error:
            raise FatalError(f"{file}: is gone") from error
        origin = record.get("same_as")
        if origin is None:
            whole[name] = record
            return {**blank_record(), **record}
        if "/" in origin:
            raise FatalError(f"{file}: is damaged (same_as); remove it")
        if origin not in whole:
            try:
                whole[origin] = self._record(origin)
            except FileNotFoundError as error:
                raise FatalError(f"{file}: repeats run {origin}, which is gone; remove it as well") from error
        return {**blank_record(), **whole[origin], **record}

    def _record(self, name: str) -> dict[str, Any]:
        """What a record's file holds, if all is there that is looked for without asking."""
        file = f"runs/{name}.json"
        try:
            found = json.loads(self.read_bytes(file))
        except (ValueError, RecursionError) as error:
            raise FatalError(f"{self.path(file)}: is damaged; remove it") from error
        trouble = record_trouble(found)
        if trouble is not None:
            raise FatalError(f"{self.path(file)}: is damaged ({trouble}); remove it")
        # Pages are named by it: it is the file's, whatever the record says.
        return {**found, "run": name}

    def scores(
        self,
        *,
        model: str | None = None,
        method: str | None = None,
        metric: str | None = None,
        run: str | None = None,
        columns: list[str] | None = None,
    ) -> pa.Table:
        """Scores of a run (default: the latest), one row a sample, method, metric and measure.

        Columns: position, id, label, target, model, method, metric, measure, value, curve. A value that is not a
        number (a sample without the premise of a metric) is null. `columns` reads some of them: curves are large.
        """
        wanted = self._variants("evaluate", run, model=model, method=method, metric=metric)
        return self._table([(one["path"], one["total"]) for one in wanted], columns)

    def predictions(self, *, model: str | None = None, run: str | None = None) -> pa.Table:
        """Predictions of a run: position, id, label, predicted, second, probability, correct, and the model."""
        tables = []
        for one in self._variants("predict", run, model=model):
            table = self._table([(one["path"], one["total"])])
            if table.num_columns:
                names = pa.array([one["model"]] * table.num_rows, pa.string())
                tables.append(table.append_column("model", names))
        return pa.concat_tables(tables) if tables else pa.table({})

    def maps(self, *, method: str | None = None, model: str | None = None, run: str | None = None) -> ds.Dataset:
        """Attribution maps of a run as a pyarrow dataset: position, id, label, target, model, method, map.

        The column `map` is a fixed-shape tensor (1, H, W) float32, higher is more relevant, after the method's
        reduction over channels.

        Raises:
            FatalError: no maps are committed.
        """
        wanted = self._variants("attribute", run, model=model, method=method)
        found = [self.dataset(one["path"]) for one in wanted]
        limits = {one["total"] for one in wanted}
        there = [dataset for dataset in found if dataset is not None]
        if not there:
            raise FatalError(f"{self.uri}: no maps of {method or 'any method'} are committed")
        whole = as_dataset(there) if len(there) > 1 else there[0]
        return whole.filter(pc.field("position") < max(limits))

    def _variants(self, stage: str, run: str | None, **wanted: str | None) -> list[dict[str, Any]]:
        return [
            one
            for one in self.run(run)["variants"]
            if one["stage"] == stage
            # What is found about images that networks are trained on anew is no result of the run.
            and one.get("split", "explained") == "explained"
            and all(value is None or one[key] == value for key, value in wanted.items())
        ]

    def _table(self, variants: Iterable[tuple[str, int]], columns: list[str] | None = None) -> pa.Table:
        """Committed rows of several variants, up to a number of positions of each."""
        read = (self.read(path, 0, total, columns) for path, total in variants)
        tables = [table.replace_schema_metadata(None) for table in read if table is not None]
        return pa.concat_tables(tables).unify_dictionaries() if tables else pa.table({})
