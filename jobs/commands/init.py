"""`heatline init`: a spec to start from."""

from __future__ import annotations

from pathlib import Path

import click

from jobs.problem import Problem, SpecError

_FETCHED = """\
  source: {source}
  root: data                            # fetched into this folder when not there"""

_DATASETS = {
    "digits": """\
  source: digits                        # 360 handwritten digits that come with scikit-learn""",
    "shapes": """\
  source: shapes                        # 1,000 generated objects, with masks for pointing and localization""",
    **{source: _FETCHED.format(source=source) for source in ("mnist", "cifar10", "cifar100")},
    "imagenet": """\
  source: imagenet
  path: data/val                        # one folder a wnid""",
    "imagefolder": """\
  source: imagefolder
  path: data/test                       # one folder a class
  train_path: data/train
  resize: 32
  crop: 32""",
    "parquet": """\
  source: parquet
  path: data/test.parquet               # Hugging Face's layout: columns image and label
  train_path: data/train.parquet""",
}

_TRAINED = """\
  - name: cifar_cnn4                    # heatline list models; timm:NAME and module:function too
    weights: train                      # or a file (.safetensors, .pt), or published ones (IMAGENET1K_V1)"""
_PUBLISHED = """\
  - name: squeezenet1_0                 # heatline list models; timm:NAME and module:function too
    weights: IMAGENET1K_V1              # or a file (.safetensors, .pt), or train"""

_SPEC = """\
# A heatline job. Check it: heatline validate {file}
# Any key can be changed for one run: --set methods.1.steps=20
version: 1
name: {name}
seed: 0                                 # of every random draw
output: runs/{name}                     # folder, s3://bucket/prefix or gs://bucket/prefix

dataset:                                # heatline list sources
{dataset}
  sample: 64                            # 64 drawn from all; also: limit (the first), classes, ids
  select: correct                       # explain only what the model gets right

models:
{model}

methods:                                # heatline list methods; heatline describe agi
  - random                              # a name: the paper's defaults
  - gradient
  - gradient_x_input
  - {{name: integrated_gradients, steps: 50, baseline: black}}
  - grad_cam
  - agi
  # a grid, one result for each combination:
  # - {{name: agi, sweep: {{classes: [1, 5], steps: [5, 20]}}}}
  # the same method twice needs an id:
  # - {{name: integrated_gradients, id: ig_blur, baseline: blur}}

metrics:                                # heatline list metrics
  - deletion
  - insertion
  - mar

report:
  samples: 24                           # images in the gallery

# Share of samples that may fail before the exit code is 1.
max_failed_share: 0.0
"""


@click.command()
@click.argument("path", default="heatline.yaml", type=click.Path(path_type=Path))
@click.option("--source", default="digits", type=click.Choice(list(_DATASETS)), help="Where the images come from.")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def init(path: Path, source: str, force: bool) -> None:
    """Write a commented starter spec to PATH (heatline.yaml).

    With the default source, digits, it runs as it is, without a network; so it does with shapes.
    """
    text = starter_spec(str(path), source)
    try:
        with path.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise SpecError([Problem(str(path), None, "", "is there already; --force overwrites it")]) from error
    except OSError as error:
        raise SpecError([Problem(str(path), None, "", f"cannot be written: {error.strerror}")]) from error
    ready = source in ("digits", "shapes")
    click.echo(f"wrote {path}; next: {'' if ready else 'put your paths in, then '}heatline validate {path}")


def starter_spec(file: str, source: str) -> str:
    """The text of a starter spec.

    Args:
        file: where it is going to lie, for its comment.
        source: the data set, a key of `_DATASETS`.
    """
    model = _PUBLISHED if source == "imagenet" else _TRAINED
    return _SPEC.format(file=file, name=f"my-{source}", dataset=_DATASETS[source], model=model)
