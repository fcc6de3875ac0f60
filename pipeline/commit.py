"""Commits: parts of Arrow rows that count as soon as their marker is there.

A variant is a folder that holds one stage's rows for one configuration, for example
`maps/model=resnet20/method=agi-1f3a9c21`. Inside it stand parts, `part-<start>-<stop>-<hash>.parquet`, each with
the rows of the samples at positions start ≤ p < stop, and `_committed/<start>-<stop>-<hash>.json`, the markers.
The marker is written last and its name says all that planning needs, so one listing tells what is done.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipeline.errors import FatalError, RetryableError, ShardError
from pipeline.files import Folder, reading
from pipeline.part import MARKER_NAME, MARKERS, PART_NAME, Failed, Part, Receipt

if TYPE_CHECKING:
    import pyarrow.dataset as ds

FAILURE_SCHEMA = pa.schema(
    [("position", pa.int64()), ("id", pa.string()), ("stage", pa.string()), ("reason", pa.string())]
)


class CommitFolder(Folder):
    """A folder of variants, each with its committed parts."""

    def __init__(self, filesystem: pafs.FileSystem, root: str, uri: str) -> None:
        super().__init__(filesystem, root, uri)
        self._seen: dict[str, list[Part]] = {}
        self._seeing = threading.Lock()

    def describe(self, variant: str, description: dict[str, Any]) -> None:
        """Keep what a variant is (`_variant.json`) beside its parts; readers of Arrow folders pass over `_…`.

        Raises:
            FatalError: the folder is another variant's whose fingerprint starts alike.
        """
        try:
            known = self.description(variant)
        except FileNotFoundError:
            content = json.dumps(description, indent=1, sort_keys=True).encode()
            self.write_bytes(f"{variant}/_variant.json", content)
            return
        if known["fingerprint"] != description["fingerprint"]:
            raise FatalError(f"{self.place(variant)}: holds another configuration; use another output")

    def description(self, variant: str) -> dict[str, Any]:
        """What `describe` kept."""
        found: dict[str, Any] = json.loads(self.read_bytes(f"{variant}/_variant.json"))
        return found

    def commit(
        self,
        variant: str,
        start: int,
        stop: int,
        table: pa.Table,
        failed: Sequence[Failed],
        expected: Iterable[str],
        seconds: float = 0.0,
    ) -> Receipt:
        """Write a part and its failures, then, last, the marker that makes them count.

        Args:
            variant: the folder.
            start: first position.
            stop: one past the last position.
            table: rows with a column `id`; several rows of one sample stand together.
            failed: the samples that have no row.
            expected: ids that went in; each must come out once, as rows or as a failure.
            seconds: what the part took to make.

        Returns:
            What the marker says.

        Raises:
            ShardError: ids out are not ids in.
            FatalError, RetryableError: as `write_bytes`.
        """
        _check_ids(variant, table, failed, expected)
        sink = pa.BufferOutputStream()
        # Maps are floats without repetition: dictionaries and statistics cost time and save nothing.
        plain = "map" in table.column_names
        # Small row groups let a reader take a few samples' maps or ranks without the rest.
        pq.write_table(
            table,
            sink,
            compression="none" if plain else "zstd",
            use_dictionary=not plain,
            write_statistics=not plain,
            row_group_size=64 if plain or "ranks" in table.column_names else 65536,
        )
        content = sink.getvalue()
        part = Part(start, stop, hashlib.sha256(content).hexdigest()[:16])
        self.write_bytes(f"{variant}/{part.file}", content)
        if failed:
            stage = variant.split("/", 1)[0]
            rows = [{**asdict(one), "stage": stage} for one in failed]
            sink = pa.BufferOutputStream()
            pq.write_table(pa.Table.from_pylist(rows, schema=FAILURE_SCHEMA), sink)
            self.write_bytes(f"failures/{variant}/{part.file}", sink.getvalue())
        receipt = Receipt(start, stop, table.num_rows, len(failed), content.size, round(seconds, 3))
        self.write_bytes(f"{variant}/{MARKERS}/{part.marker}", json.dumps(asdict(receipt)).encode())
        self._remember(variant, part)
        return receipt

    def _remember(self, variant: str, part: Part) -> None:
        """Know a part without a listing: what is read next is mostly what was just written here."""
        with self._seeing:
            known = self._seen.setdefault(variant, [])
            place = bisect_left(known, part)
            before, after = known[max(0, place - 1) : place], known[place : place + 1]
            if all(one.stop <= part.start for one in before) and all(one.start >= part.stop for one in after):
                known.insert(place, part)

    def parts(self, variant: str) -> list[Part]:
        """The committed parts that count, in order, without overlap; one listing.

        Where parts overlap (two runs with other unit sizes at the same time) the one that starts first, then the
        longer one, counts; what is left uncovered is a gap to be computed.
        """
        counted: list[Part] = []
        for _, same_start in groupby(self._markers(variant), lambda found: found[1]):
            start, stop, content = max(same_start, key=lambda found: found[2]).groups()
            if not counted or int(start) >= counted[-1].stop:
                counted.append(Part(int(start), int(stop), content))
        return counted

    def receipts(self, variant: str) -> Iterator[Receipt]:
        """What the markers of the parts that count say, in order; one read each."""
        for part in self.parts(variant):
            yield Receipt(**json.loads(self.read_bytes(f"{variant}/{MARKERS}/{part.marker}")))

    def _markers(self, variant: str) -> Iterator[re.Match[str]]:
        """Start, stop and hash of each marker as text, of one width, so that names sort as the numbers do."""
        for name in sorted(self.names(f"{variant}/{MARKERS}")):
            if match := MARKER_NAME.match(name):
                yield match

    def forget(self, variant: str) -> None:
        """Take a variant's commits back, markers first, so that it is computed again."""
        with self._seeing:
            self._seen.pop(variant, None)
        for folder in (f"{variant}/{MARKERS}", variant, f"failures/{variant}"):
            self.remove_folder(folder)

    def read(
        self, variant: str, start: int = 0, stop: int | None = None, columns: list[str] | None = None
    ) -> pa.Table | None:
        """Rows of the samples at positions start ≤ p < stop, in order; None where nothing is committed.

        Args:
            variant: the folder.
            start: first position.
            stop: one past the last position; default: to the end.
            columns: those wanted; default: all.
        """
        wanted = self._touching(variant, start, stop)
        if not wanted:
            return None
        inside = pc.field("position") >= start
        if stop is not None:
            inside = inside & (pc.field("position") < stop)
        with self.reading_rows(variant):
            return self._dataset(variant, wanted).to_table(columns=columns, filter=inside)

    def read_all(self, variant: str, start: int, stop: int, columns: list[str] | None = None) -> pa.Table:
        """As `read`, of positions that all have to be committed; a sample that failed has no row.

        Raises:
            RetryableError: some are not: what reads them would leave them out for good.
        """
        left = stop - start - _covered(self._touching(variant, start, stop), start, stop)
        table = self.read(variant, start, stop, columns) if not left else None
        if table is None:
            raise RetryableError(
                f"{variant}: of positions {start} to {stop - 1}, {left} are not committed (any more); run the job again"
            )
        return table

    def _touching(self, variant: str, start: int, stop: int | None) -> list[Part]:
        """The parts that share a position with start ≤ p < stop.

        A worker reads a variant range by range: what was listed once serves as long as it covers what is asked,
        since parts are never changed.
        """
        if stop is not None:
            with self._seeing:
                known = _between(self._seen.get(variant, []), start, stop)
            if _covered(known, start, stop) == stop - start:
                return known
        found = self.parts(variant)
        with self._seeing:
            self._seen[variant] = found
            return _between(found, start, stop)

    def dataset(self, variant: str, parts: Sequence[Part] | None = None) -> ds.Dataset | None:
        """Parts of a variant (default: all that count) as a pyarrow dataset; None where there are none."""
        parts = self.parts(variant) if parts is None else parts
        with self.reading_rows(variant):
            return self._dataset(variant, parts) if parts else None

    @contextmanager
    def reading_rows(self, variant: str) -> Iterator[None]:
        """Around a read of committed rows: says what a failure means, and how to have a part again.

        Raises:
            FatalError, RetryableError: as `reading`.
            ShardError: a part is damaged, or is gone although its marker is there.
        """
        try:
            with reading(self.place(variant)):
                yield
        except (FileNotFoundError, ShardError) as error:
            found = PART_NAME.search(str(error.__cause__ or error))
            marker = f"{found[1]}.json" if found else "the marker of the part that is damaged"
            what = "gone" if isinstance(error, FileNotFoundError) else "damaged"
            raise ShardError(
                f"{variant}: {found[0] if found else 'a committed part'} is {what}; remove {marker} from "
                f"{self.place(variant)}/{MARKERS}, and the next run computes it anew"
            ) from error

    def without_rows(self, variant: str) -> pa.Table | None:
        """A table with the columns of a variant's rows and no row; None where no committed part has any rows."""
        for part in self.parts(variant):
            name = f"{variant}/{part.file}"
            with reading(self.place(name)):
                file = pq.ParquetFile(self.path(name), filesystem=self._filesystem)
                if file.metadata.num_rows:
                    return file.read_row_groups([])
        return None

    def failures(self, variants: Iterable[str]) -> pa.Table:
        """Failures of the variants' committed parts: position, id, stage, reason."""
        tables = [FAILURE_SCHEMA.empty_table()]
        for variant in variants:
            there = set(self.names(f"failures/{variant}"))
            names = [part.file for part in self.parts(variant) if part.file in there] if there else []
            with reading(self.place(f"failures/{variant}")):
                tables += [
                    pq.read_table(self.path(f"failures/{variant}/{name}"), filesystem=self._filesystem)
                    for name in names
                ]
        return pa.concat_tables(tables)

    def _dataset(self, variant: str, parts: Sequence[Part]) -> ds.Dataset:
        paths = [self.path(f"{variant}/{part.file}") for part in parts]
        # Paths that hold `key=value` must not become columns here: parts say themselves what they are.
        return as_dataset(paths, format="parquet", filesystem=self._filesystem, partitioning=None)


def _between(parts: Sequence[Part], start: int, stop: int | None) -> list[Part]:
    """Of parts in order that do not overlap, those that share a position with start ≤ p < stop."""
    low = bisect_right(parts, start, key=lambda part: part.stop)
    high = len(parts) if stop is None else bisect_left(parts, stop, key=lambda part: part.start)
    return list(parts[low:high])


def _covered(parts: Iterable[Part], start: int, stop: int) -> int:
    """How many of the positions start ≤ p < stop some parts hold, each of which holds one."""
    return sum(min(part.stop, stop) - max(part.start, start) for part in parts)


def as_dataset(source: Any, **how: Any) -> ds.Dataset:
    # pyarrow.dataset imports pandas, a second that a job with nothing to do shall not wait.
    import pyarrow.dataset  # noqa: PLC0415

    return pyarrow.dataset.dataset(source, **how)


def _check_ids(variant: str, table: pa.Table, failed: Sequence[Failed], expected: Iterable[str]) -> None:
    """Ids in = ids out: every expected id once, in rows or among the failures."""
    out = table.column("id").unique().to_pylist() + [one.id for one in failed]
    wanted = list(expected)
    if len(out) != len(wanted) or set(out) != set(wanted):
        missing, extra = sorted(set(wanted) - set(out)), sorted(set(out) - set(wanted))
        raise ShardError(
            f"{variant}: {len(wanted)} samples went in and {len(out)} came out; "
            f"missing {missing[:3]}, unexpected {extra[:3]}"
        )


def constant_column(text: str, rows: int) -> pa.DictionaryArray:
    """A column that says the same in every row, at the cost of saying it once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text], pa.string()))
