"""A folder on a local disk or an object store: whole files or none, one listing for many."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.fs as pafs

from pipeline.errors import FatalError, RetryableError, ShardError

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
        raise RetryableError(f"{place}: {' '.join(str(error).split())[:200]}") from error


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

    def exists(self, name: str) -> bool:
        """Whether a file or folder of this name is there."""
        with reading(self.path(name)):
            return bool(self._filesystem.get_file_info(self.path(name)).type != pafs.FileType.NotFound)

    def read_bytes(self, name: str) -> bytes:
        """The content of a file."""
        with (
            reading(self.path(name)),
            self._filesystem.open_input_stream(self.path(name), compression=None) as stream,
        ):
            return bytes(stream.read())

    def write_bytes(self, name: str, content: bytes | pa.Buffer) -> None:
        """Write a file so that it is there whole or not at all: temporary name and rename, or a single put.

        Raises:
            FatalError: no space or no permission; nothing that was there is touched.
            RetryableError: the store failed in a way that may pass.
        """
        target = self.path(name)
        try:
            if not self._local:
                with self._filesystem.open_output_stream(target) as stream:
                    stream.write(content)
                return
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

    def remove(self, name: str) -> None:
        """Take a file away, if it is there.

        Raises:
            RetryableError: the store failed in a way that may pass.
        """
        if self.exists(name):
            try:
                self._filesystem.delete_file(self.path(name))
            except FileNotFoundError:
                return  # another run of the same output was quicker
            except OSError as error:
                raise RetryableError(f"{self.path(name)}: {error}") from error

    def list(self, folder: str) -> list[tuple[str, int]]:
        """Files under a folder with their sizes, names relative to the folder, sorted; one listing."""
        base = self.path(folder)
        selector = pafs.FileSelector(base, allow_not_found=True)
        with reading(base):
            found = self._filesystem.get_file_info(selector)
        return sorted(
            (PurePosixPath(info.path).relative_to(base).as_posix(), info.size)
            for info in found
            if info.type == pafs.FileType.File
        )

    def cached_table(self, name: str, build: Callable[[], pa.Table]) -> pa.Table:
        """The Arrow table kept under `name`, made and kept on first use."""
        if not self.exists(name):
            sink = pa.BufferOutputStream()
            table = build()
            with pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            self.write_bytes(name, sink.getvalue())
        return self.open_table(name)

    def open_table(self, name: str) -> pa.Table:
        """An Arrow table kept by `cached_table`; memory-mapped on a local disk."""
        with reading(self.path(name)):
            return self._open_table(name)

    def _open_table(self, name: str) -> pa.Table:
        source = pa.memory_map(self.path(name)) if self._local else self._filesystem.open_input_file(self.path(name))
        return pa.ipc.open_file(source).read_all()
