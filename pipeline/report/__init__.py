"""What a run shows: one HTML page, its figures as files, pictures of single samples, and trends over runs."""

from pipeline.report.dataset import run_dataset
from pipeline.report.heatmap import display_scale, display_scale_signed, overlay
from pipeline.report.history import build_history
from pipeline.report.page import build_report
from pipeline.report.picture import sample_picture
from pipeline.report.sample import SampleModel, SampleView, view_sample

__all__ = [
    "SampleModel",
    "SampleView",
    "build_history",
    "build_report",
    "display_scale",
    "display_scale_signed",
    "overlay",
    "run_dataset",
    "sample_picture",
    "view_sample",
]
