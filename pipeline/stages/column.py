"""Arrow columns of tensors."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from torch import Tensor


def tensor_array(values: Tensor) -> pa.Array:
    """Tensors (B, …) as a canonical fixed-shape tensor column of their shape without B."""
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(values.numpy().dtype), tuple(values.shape[1:]))
    if len(values):
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values.numpy()))
    return pa.ExtensionArray.from_storage(kind, pa.array([], kind.storage_type))
