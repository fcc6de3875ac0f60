"""A folder on a local disk or an object store: whole files or none, one listing for many."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from pipeline.errors import FatalError, RetryableError, ShardError
from pipeline.filesystem import file_address, store_error

CALLS = 16
"""Calls to an object store that are under way at a time, where many are to be made."""

PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between attempts at a read that pyarrow gave up at once, as it does where the text of S3's error is longer
than what is read."""

PATIENCE = 20.0
"""Seconds after which a read is not attempted again: for a silent store pyarrow itself waits, half a minute."""

Result = TypeVar("Result")

_NOT_TO_BE_WRITTEN = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.ENOENT,
    errno.ENAMETOOLONG,
    errno.EINVAL,
)


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Says of a failed read whether another attempt may help.

    Raises:
        FatalError: the store refuses: no bucket of this name, no valid credentials.
        RetryableError: the store did not answer, or the disk failed.
        ShardError: what lies there is damaged.
    """
    try:
        yield
    except pa.ArrowInvalid as error:
        raise ShardError(f"{place}: damaged ({' '.join(str(error).split())[:200]})") from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise store_error(place, error) from error


class Folder:
    """Files under a root, by names with `/` relative to it.

    Attributes:
        uri: the root: an absolute path, or a URI such as `s3://bucket/prefix`.
    """

    def __init__(self, filesystem: pafs.FileSystem, root: str, uri: str) -> None:
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self._local = isinstance(filesystem, pafs.LocalFileSystem)
        self.uri = uri

    def path(self, name: str) -> str:
        """The place of a file under this output, in the file system's own form."""
        return f"{self._root}/{name}"

    def place(self, name: str) -> str:
        """The place of a file under this output for people: a path, or a URI."""
        return file_address(self.uri, name)

    def exists(self, name: str) -> bool:
        """Whether a file or folder of this name is there."""
        with reading(self.place(name)):
            return bool(self._filesystem.get_file_info(self.path(name)).type != pafs.FileType.NotFound)

    def read_bytes(self, name: str) -> bytes:
        """The content of a file."""
        began = time.monotonic()
        for pause in () if self._local else PAUSES:
            try:
                return self._content(name)
            except RetryableError:
                if time.monotonic() - began > PATIENCE:
                    raise
            time.sleep(pause)
        return self._content(name)

    def _content(self, name: str) -> bytes:
        with (
            reading(self.place(name)),
            self._filesystem.open_input_stream(self.path(name), compression=None) as stream,
        ):
            return bytes(stream.read())

    def write_bytes(self, name: str, content: bytes | pa.Buffer) -> None:
        """Write a file so that it is there whole or not at all: temporary name and rename, or a single put.

        Raises:
            FatalError: no space, no permission or no bucket; nothing that was there is touched.
            RetryableError: the store failed in a way that may pass.
        """
        target = self.path(name)
        if not self._local:
            self._put(name, content)
            return
        try:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(f"{target}.{uuid.uuid4().hex}.tmp")
            try:
                temporary.write_bytes(content)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise FatalError(f"{self.uri}: no space left; free some and run the same command again") from error
            if error.errno in _NOT_TO_BE_WRITTEN:
                raise FatalError(f"{target}: cannot be written: {error.strerror}") from error
            raise RetryableError(f"{target}: {error}") from error

    def _put(self, name: str, content: bytes | pa.Buffer) -> None:
        # In a thread, which no signal interrupts: a stream that is closed after half of its content puts that half.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(self._put_whole, name, content).result()

    def _put_whole(self, name: str, content: bytes | pa.Buffer) -> None:
        try:
            with self._filesystem.open_output_stream(self.path(name)) as stream:
                stream.write(content)
        except OSError as error:
            raise store_error(self.place(name), error) from error

    def remove(self, name: str) -> None:
        """Take a file away, if it is there.

        Raises:
            RetryableError: the store failed in a way that may pass.
        """
        try:
            self._filesystem.delete_file(self.path(name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise store_error(self.place(name), error) from error

    def remove_folder(self, folder: str) -> None:
        """Take a folder away with all that is in it, if it is there; on an object store by prefix.

        Raises:
            RetryableError: the store failed in a way that may pass.
        """
        if self.exists(folder):
            try:
                self._filesystem.delete_dir(self.path(folder))
            except FileNotFoundError:
                return  # another run of the same output was quicker
            except OSError as error:
                raise store_error(self.place(folder), error) from error

    def together(self, task: Callable[[str], Result], names: Iterable[str]) -> dict[str, Result]:
        """What a task gives for each name; several at a time on an object store, whose answers take their way."""
        listed = list(names)
        if self._local:
            return {name: task(name) for name in listed}
        with ThreadPoolExecutor(CALLS) as threads:
            return dict(zip(listed, threads.map(task, listed), strict=True))

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder, in no order; on an object store one listing, a thousand names an answer."""
        if not self._local:
            return [name for name, _ in self.list(folder)]
        try:
            with os.scandir(self.path(folder)) as entries:
                return [entry.name for entry in entries if entry.is_file()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise store_error(self.place(folder), error) from error

    def list(self, folder: str) -> list[tuple[str, int]]:
        """Files under a folder with their sizes, names relative to the folder, sorted; one listing."""
        selector = pafs.FileSelector(self.path(folder), allow_not_found=True)
        with reading(self.place(folder)):
            found = self._filesystem.get_file_info(selector)
        return sorted((info.base_name, info.size) for info in found if info.type == pafs.FileType.File)

    def times(self, folder: str) -> dict[str, float]:
        """When the files in a folder were last written, by name: seconds of the store's own clock; one listing."""
        selector = pafs.FileSelector(self.path(folder), allow_not_found=True)
        with reading(self.place(folder)):
            found = self._filesystem.get_file_info(selector)
        return {info.base_name: info.mtime_ns / 1e9 for info in found if info.type == pafs.FileType.File}

    def cached_table(self, name: str, build: Callable[[], pa.Table]) -> pa.Table:
        """The Arrow table kept under `name`, made and kept on first use, and again where it is damaged."""
        if self.exists(name):
            with suppress(ShardError):
                return self.open_table(name)
        return self._keep_table(name, build())

    def _keep_table(self, name: str, table: pa.Table) -> pa.Table:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        self.write_bytes(name, sink.getvalue())
        return self.open_table(name)

    def open_table(self, name: str) -> pa.Table:
        """An Arrow table kept by `cached_table`; memory-mapped on a local disk."""
        with reading(self.place(name)):
            return self._open_table(name)

    def _open_table(self, name: str) -> pa.Table:
        # Read at once: an object store takes its time for each of many small reads.
        source = pa.memory_map(self.path(name)) if self._local else pa.BufferReader(self.read_bytes(name))
        return pa.ipc.open_file(source).read_all()
