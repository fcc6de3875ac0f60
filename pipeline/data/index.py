"""The list of every sample of a source: made once, kept by the store, opened by every worker."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa

from pipeline.contracts import digest
from pipeline.data.decode import Size
from pipeline.data.source import ELSEWHERE, SELECTION, SourceConfig
from pipeline.errors import FatalError

# Raised when the index of the same source would come out otherwise.
REVISION = 1

# A source whose first hundred images are all unusable is the wrong source.
_TRIED = 100


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """What an index says about its source as a whole.

    Attributes:
        classes: number of classes; 0 where no label is known.
        class_names: one a class, or None.
        height, width: size of the images after resize and crop.
        digest: 16 hexadecimal digits of ids, labels and content.
    """

    classes: int
    class_names: tuple[str, ...] | None
    height: int
    width: int
    digest: str


def index_key(config: SourceConfig) -> str:
    """A name under which the index can be kept: it changes when the source may have changed.

    Costs a look at folder times and at the files of small folders, whatever the number of images. What is selected is
    no part of it.

    Raises:
        FatalError: the source is missing.
    """
    described = config.model_dump(mode="json", exclude=set(SELECTION | ELSEWHERE))
    return digest(REVISION, described, config.state())


def build_index(config: SourceConfig) -> pa.Table:
    """List the whole source, whatever the configuration selects.

    Returns:
        A table with `id` (string, different), `label` (int64, null where unknown) and the columns by which
        the source finds an image. Its schema's metadata holds JSON: `classes`, `class_names`, `height`,
        `width`, `digest`, and the source's notes.

    Raises:
        FatalError: the source is missing, empty, malformed, or none of its first images can be decoded.
    """
    listing = config.listing()
    table = pa.table({"id": listing.ids, "label": listing.labels, **listing.locator}).combine_chunks()
    table = table.replace_schema_metadata(_as_json(listing.notes))
    height, width = _image_size(config, table)
    facts = {
        "classes": listing.classes,
        "class_names": listing.class_names,
        "height": height,
        "width": width,
        "digest": listing.digest(),
    }
    return table.replace_schema_metadata(_as_json({**listing.notes, **facts}))


def index_facts(index: pa.Table) -> IndexFacts:
    """Read back what `build_index` wrote into the metadata.

    Raises:
        FatalError: the table is no index.
    """
    try:
        found = {name: json.loads(index.schema.metadata[name.encode()]) for name in IndexFacts.__dataclass_fields__}
    except (KeyError, TypeError, ValueError):
        raise FatalError("the index table carries no description of its source; delete it and run again") from None
    names = found["class_names"]
    return IndexFacts(**{**found, "class_names": None if names is None else tuple(names)})


def _as_json(values: dict[str, object]) -> dict[str, str]:
    return {name: json.dumps(value) for name, value in values.items()}


def _image_size(config: SourceConfig, table: pa.Table) -> Size:
    if config.crop is not None:
        return config.crop, config.crop
    reason = ""
    for row in range(min(_TRIED, len(table))):
        pixels = config.read(table.slice(row, 1), None, 1)
        if not pixels.reasons:
            return pixels.images.shape[2], pixels.images.shape[3]
        reason = reason or f"{table['id'][row].as_py()}: {pixels.reasons[0]}"
    raise FatalError(f"none of the first {min(_TRIED, len(table))} images of the data set can be used; {reason}")
