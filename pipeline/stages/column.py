"""Arrow columns of tensors."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor


def tensor_array(values: Tensor) -> pa.Array:
    """Tensors (B, …) as a canonical fixed-shape tensor column of their shape without B."""
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(values.numpy().dtype), tuple(values.shape[1:]))
    if len(values):
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values.numpy()))
    return pa.ExtensionArray.from_storage(kind, pa.array([], kind.storage_type))


def stored_tensor(column: pa.ChunkedArray) -> Tensor:
    """A column of fixed-shape tensors, as `tensor_array` makes it, as one tensor (B, …)."""
    if len(column):
        return torch.tensor(column.combine_chunks().to_numpy_ndarray())
    # pyarrow makes no array of no tensors.
    kind = column.type
    return torch.from_numpy(np.empty((0, *kind.shape), kind.value_type.to_pandas_dtype()))
