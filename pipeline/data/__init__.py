"""Images with stable ids: one file a source, an index that lists a source once, and shards of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.data.cifar10 import Cifar10
from pipeline.data.cifar100 import Cifar100
from pipeline.data.dataset import Dataset, Failure, Shard
from pipeline.data.digits import Digits
from pipeline.data.imagefolder import ImageFolder
from pipeline.data.imagenet import ImageNet
from pipeline.data.index import IndexFacts, build_index, index_facts, index_key
from pipeline.data.mnist import Mnist
from pipeline.data.parquet import Parquet
from pipeline.data.shapes import Shapes
from pipeline.data.source import SourceConfig

SOURCES = (Digits, Shapes, Mnist, Cifar10, Cifar100, ImageNet, ImageFolder, Parquet)

DatasetConfig = Annotated[
    Digits | Shapes | Mnist | Cifar10 | Cifar100 | ImageNet | ImageFolder | Parquet, Field(discriminator="source")
]

__all__ = [
    "SOURCES",
    "Cifar10",
    "Cifar100",
    "Dataset",
    "DatasetConfig",
    "Digits",
    "Failure",
    "ImageFolder",
    "ImageNet",
    "IndexFacts",
    "Mnist",
    "Parquet",
    "Shapes",
    "Shard",
    "SourceConfig",
    "build_index",
    "index_facts",
    "index_key",
]
