"""Remove and retrain, keep and retrain: masked data sets and what a network still learns from them."""

from pipeline.retrain.config import Cell, RetrainConfig, RetrainFill, RetrainKind
from pipeline.retrain.masking import masked, top_count

__all__ = ["Cell", "RetrainConfig", "RetrainFill", "RetrainKind", "masked", "top_count"]
