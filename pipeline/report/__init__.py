"""What a run shows: one HTML page, its figures as files, and pictures of single samples."""

from pipeline.report.dataset import run_dataset
from pipeline.report.heatmap import display_scale, display_scale_signed, overlay
from pipeline.report.page import build_report
from pipeline.report.picture import sample_picture
from pipeline.report.sample import SampleModel, SampleView, view_sample

__all__ = [
    "SampleModel",
    "SampleView",
    "build_report",
    "display_scale",
    "display_scale_signed",
    "overlay",
    "run_dataset",
    "sample_picture",
    "view_sample",
]
