"""One sample as a picture: the image and the maps of all methods side by side, with their names."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from pipeline.plain_text import plain_line
from pipeline.report.heatmap import as_picture, enlarged, overlay
from pipeline.report.sample import SampleModel, SampleView

TILE = 192
"""Least side of an image or map in the picture, in pixels."""

_MARGIN, _GAP, _LINE = 20, 12, 18
_LONGEST_LINE = 1200
_PAPER, _INK, _MUTED = "#ffffff", "#1b1f24", "#57606a"


def sample_picture(view: SampleView, *, signed: bool = False) -> Image.Image:
    """Draw a sample: a row for each model, the image first, then each method's map over it.

    Args:
        view: the sample.
        signed: maps from blue to red around zero, in place of dark to bright.

    Returns:
        An RGB picture; small images are enlarged by repeating pixels.
    """
    image = enlarged(as_picture(view.image), TILE)
    tile = image.width, image.height
    font, small = _font(14), _font(12)
    columns = 1 + max(len(one.maps) for one in view.models)
    width = 2 * _MARGIN + columns * tile[0] + (columns - 1) * _GAP
    head = _MARGIN + _LINE + 8
    row = _LINE + 8 + tile[1] + _LINE + _GAP
    title = view.id + (f" · label {view.label}" if view.label is not None else "")
    # Names from the data set are drawn in one line, and make no picture wider than is sensible.
    room = max(width - 2 * _MARGIN, _LONGEST_LINE)
    title, *lines = (_fitting(plain_line(text), font, room) for text in (title, *map(_heading, view.models)))
    width = max(width, *(2 * _MARGIN + int(font.getlength(text)) + 1 for text in (title, *lines)))
    picture = Image.new("RGB", (width, head + row * len(view.models) + _MARGIN - _GAP), _PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, _MARGIN), title, fill=_INK, font=font)
    for number, (model, heading) in enumerate(zip(view.models, lines, strict=True)):
        top = head + number * row
        draw.text((_MARGIN, top), heading, fill=_MUTED, font=font)
        tiles = [("image", image)] + [
            (method, enlarged(overlay(view.image, attribution, signed=signed), TILE))
            for method, attribution in model.maps.items()
        ]
        for column, (name, tile_picture) in enumerate(tiles):
            left = _MARGIN + column * (tile[0] + _GAP)
            picture.paste(tile_picture, (left, top + _LINE + 8))
            text = _fitting(name, small, tile[0])
            draw.text((left, top + _LINE + 8 + tile[1] + 4), text, fill=_INK, font=small)
    return picture


def _heading(model: SampleModel) -> str:
    if model.predicted is None:
        return f"{model.model}: no prediction"
    right = {True: ", correct", False: ", wrong", None: ""}[model.correct]
    share = "" if model.probability is None else f" with probability {model.probability:.3f}"
    return f"{model.model}: predicts {model.predicted}{share}{right}"


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, shortened where it is wider than there is room; no letter is narrower than a pixel."""
    text = text[: width + 1]
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _font(size: int) -> ImageFont.FreeTypeFont:
    # The font that comes with matplotlib: the same letters on every machine, Greek and Cyrillic among them.
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
