"""A spec for another machine: its text with every path resolved, and the paths that are not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from jobs.document import read_document, write_document
from jobs.overrides import apply_overrides
from jobs.problem import Problem
from jobs.spec import JobSpec, find_spec, load_spec


def portable_text(path: str | Path, overrides: Sequence[str] = ()) -> str:
    """A spec's text as it can be read anywhere: overrides applied, relative paths absolute, sweeps as written.

    Args:
        path, overrides: as for `load_spec`.

    Raises:
        SpecError: as `load_spec`.
    """
    spec, file = load_spec(path, overrides), find_spec(str(path))
    document = read_document(file, str(path), file.absolute().parent)
    apply_overrides(document, overrides, Path.cwd())
    value = document.value
    if not isinstance(value, dict):
        raise TypeError(f"{path}: load_spec took {type(value).__name__} for a spec")
    value["output"] = spec.output
    value["dataset"].update({place[1]: path for place, path in spec.paths() if place[0] == "dataset"})
    for place, resolved in spec.paths():
        if place[0] == "models":
            value["models"][place[1]]["weights"] = resolved
    return write_document(value)


def unreachable(spec: JobSpec, writable: Sequence[str], readable: Sequence[str]) -> list[Problem]:
    """The paths of a spec that pods do not have.

    Args:
        spec: the spec.
        writable: absolute folders in which they may write.
        readable: absolute folders from which they may read.

    Returns:
        A problem for each path that is neither a URI of shared storage nor in one of the folders.
    """
    problems = []
    if not _is_there(spec.output, writable):
        message = (
            f"'{spec.output}' is a folder of this machine; expected an object store (s3://bucket/prefix, "
            f"gs://bucket/prefix) or a folder of a volume, {_known(writable)}"
        )
        problems.append(spec.problem(("output",), message))
    for place, path in spec.paths():
        if not _is_there(path, readable):
            message = (
                f"'{path}' is a path of this machine; expected a path as the pods see it, in a volume or in the image "
                f"(--in-image FOLDER), {_known(readable)}"
            )
            problems.append(spec.problem(place, message))
    return problems


def absent(spec: JobSpec, elsewhere: Sequence[str]) -> list[Problem]:
    """The data and weights of a spec that are not on this machine.

    Args:
        spec: the spec.
        elsewhere: absolute folders that only the cluster's nodes see, whose files are taken to be there.

    Returns:
        A problem for each path that is neither here, nor in one of the folders, nor a URI of shared storage.
    """
    return [
        spec.problem(
            place,
            f"'{path}' is not there; expected a path that this machine shares with the cluster's nodes, or one in a "
            "folder that only they see (--on-cluster FOLDER)",
        )
        for place, path in spec.paths()
        # A source that fetches its files makes the folder for them as well.
        if not (place[0] == "dataset" and getattr(spec.dataset, "download", False))
        and not _is_there(path, elsewhere)
        and not Path(path.removeprefix("file://")).exists()
    ]


def is_local(path: str, elsewhere: Sequence[str] = ()) -> bool:
    """Whether a path is one of this machine: neither a URI of shared storage nor in one of the folders."""
    return not _is_there(path, elsewhere)


def _known(folders: Sequence[str]) -> str:
    return f"known: {', '.join(folders)}" if folders else "mounted by --volume CLAIM:FOLDER"


def _is_there(path: str, folders: Sequence[str]) -> bool:
    scheme, uri, rest = path.partition("://")
    if uri and scheme != "file":
        return True
    inside = PurePosixPath("/", rest if uri else path)
    return ".." not in inside.parts and any(inside.is_relative_to(folder) for folder in folders)
