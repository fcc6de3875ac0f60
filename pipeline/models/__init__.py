"""Models: building, weights, normalisation, training."""

from pipeline.models.build import ModelInfo, build_network, known_models
from pipeline.models.check import check_classifier
from pipeline.models.classifier import Classifier
from pipeline.models.config import ModelConfig, TrainingConfig
from pipeline.models.image_memory import HeldTooMuchError, with_images
from pipeline.models.image_shards import ImageShards
from pipeline.models.layers import last_spatial_layer
from pipeline.models.load import load_classifier
from pipeline.models.processes import ALONE, Processes
from pipeline.models.training import TrainedNetwork, permuted_labels, train_and_test, train_network
from pipeline.models.training_checkpoint import CheckpointError
from pipeline.models.training_data import HeldImages, Images, StreamedImages
from pipeline.models.weights import read_weights, weights_bytes

__all__ = [
    "ALONE",
    "CheckpointError",
    "Classifier",
    "HeldImages",
    "HeldTooMuchError",
    "ImageShards",
    "Images",
    "ModelConfig",
    "ModelInfo",
    "Processes",
    "StreamedImages",
    "TrainedNetwork",
    "TrainingConfig",
    "build_network",
    "check_classifier",
    "known_models",
    "last_spatial_layer",
    "load_classifier",
    "permuted_labels",
    "read_weights",
    "train_and_test",
    "train_network",
    "weights_bytes",
    "with_images",
]
