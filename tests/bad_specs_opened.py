"""Specs whose mistake shows when data and weights are opened, and what must be said of each."""

from __future__ import annotations

from bad_specs import spec

# As `bad_specs.BAD`.
BAD_WHEN_OPENED: dict[str, tuple[str | bytes, list[tuple[int | None, str, str]]]] = {
    "no data file": (
        spec(data="dataset:\n  source: parquet\n  path: nowhere.parquet\n"),
        [(6, "dataset.path", "nowhere.parquet' does not exist")],
    ),
    "no image folder": (
        spec(data="dataset: {source: imagefolder, path: nowhere}\n"),
        [(4, "dataset.path", "nowhere' does not exist")],
    ),
    "unknown class": (
        spec(data="dataset:\n  source: digits\n  classes: [12]\n"),
        [(6, "dataset.classes", "there is no label 12")],
    ),
    "no weights file": (
        spec(models="models:\n  - name: cifar_resnet8\n    weights: nowhere.safetensors\n"),
        [(7, "models[0].weights", "no such file of weights")],
    ),
    "weights that are none": (
        spec(models="models:\n  - {name: cifar_resnet8, weights: text.safetensors}\n"),
        [(6, "models[0].weights", "not a safetensors file")],
    ),
    "weights of another architecture": (
        spec(models="models:\n  - {name: cifar_cnn4, weights: resnet8.safetensors}\n"),
        [(6, "models[0].weights", "not the weights of cifar_cnn4 (the file says cifar_resnet8)")],
    ),
    "too few classes": (
        spec(models="models:\n  - {name: cifar_resnet8, weights: random, classes: 3}\n"),
        [
            (
                6,
                "models[0].classes",
                "the model has 3 classes, the data set 10: labels up to 9 are past its logits",
            )
        ],
    ),
    "too many classes": (
        spec(models="models:\n  - {name: cifar_resnet8, weights: random, classes: 12}\n"),
        [(6, "models[0].classes", "their labels do not mean the same")],
    ),
    "more classes than the largest label": (
        spec(
            data="dataset: {source: parquet, path: four.parquet}\n",
            models="models:\n  - {name: cifar_cnn4, weights: cnn4.safetensors}\n",
        ),
        [
            (
                6,
                "models[0].classes",
                "the model has 1,000 classes, the data set's labels go to 9; "
                "if the labels mean the model's first classes, say classes: 1000 here",
            )
        ],
    ),
    "what takes labels without labels": (
        spec(
            data="dataset:\n  source: parquet\n  path: unlabelled.parquet\n  label_column: null\n"
            "  select: correct_for_all_models\n",
            methods="methods:\n  - gradient\n  - {name: agi, target: label}\n",
        ),
        [
            (8, "dataset.select", "select: correct_for_all_models needs labels, and the data set has none"),
            (13, "methods[1].target", "target: label needs labels, and the data set has none"),
        ],
    ),
    "target label in a sweep without labels": (
        spec(
            data="dataset: {source: parquet, path: unlabelled.parquet, label_column: null, select: correct}\n",
            methods="methods:\n  - {name: agi, sweep: {target: [predicted, label]}}\n",
        ),
        [
            (4, "dataset.select", "select: correct needs labels"),
            (8, "methods[0].sweep.target[1]", "target: label needs labels"),
        ],
    ),
    "where things are, on images that do not say so": (
        spec(rest="metrics:\n  - mar\n  - pointing\n  - {name: localization, region_name: shortcut}\n"),
        [
            (
                10,
                "metrics[1].region_name",
                "the data set has no region 'object'; it knows of none; take source: shapes",
            ),
            (11, "metrics[2].region_name", "localization: the data set has no region 'shortcut'; it knows of none"),
        ],
    ),
    "a region that the data set does not have": (
        spec(
            data="dataset: {source: shapes, count: 4}\n",
            models="models:\n  - {name: cifar_resnet8, weights: random}\n",
            rest="metrics: [pointing, {name: localization, sweep: {region_name: [object, shortcut]}}]\n",
        ),
        [
            (
                8,
                "metrics[1].sweep.region_name[1]",
                "localization: the data set has no region 'shortcut'; known: object",
            )
        ],
    ),
    "no such mask column": (
        spec(data="dataset:\n  source: parquet\n  path: four.parquet\n  mask_column: masks\n"),
        [(7, "dataset.mask_column", "has no column 'masks'")],
    ),
    "a label from a shortcut that is not there": (
        spec(data="dataset:\n  source: shapes\n  label_from: shortcut\n"),
        [(4, "dataset", "label_from: shortcut needs a shortcut, and there is none; set shortcut: 1")],
    ),
    "a rule without a meaning for an activation": (
        spec(
            models="models:\n  - {name: mobilenet_v3_small, weights: random}\n",
            methods="methods: [gradient, guided_backprop, {name: grad_cam, layer: nowhere}]\n",
        ),
        [
            (7, "methods[1]", "guided_backprop: its rule has no meaning for hardswish"),
            (7, "methods[2]", "grad_cam: the model has no layer 'nowhere'"),
        ],
    ),
    "a class that Captum does not have": (
        spec(methods="methods: ['captum:Salience']\n"),
        [(7, "methods[0]", "has no such class; did you mean 'Saliency'?")],
    ),
    "a named false class past the model's": (
        spec(methods="methods:\n  - {name: agi, classes: [3, 10]}\n"),
        [(8, "methods[0]", "10")],
    ),
    "more false classes than there are": (
        spec(methods="methods:\n  - gradient\n  - {name: agi, classes: 10}\n"),
        [(9, "methods[1]", "classes is 10, the model has 9 false classes")],
    ),
    "nothing to train on": (
        spec(
            data="dataset: {source: parquet, path: four.parquet}\n",
            models="models:\n  - name: cifar_resnet8\n    weights: train\n",
        ),
        [(7, "models[0].weights", "needs a training split; set dataset.train_path")],
    ),
    "another's output folder": (
        spec(head="version: 1\nname: a\noutput: .\n"),
        [(3, "output", "is not empty and is not a heatline output")],
    ),
    "output in an unknown store": (
        spec(head="version: 1\nname: a\noutput: foo://bar\n"),
        [(3, "output", "one of file://, s3://, gs://, gcs://, hdfs://")],
    ),
    "a file as output": (
        spec(head="version: 1\nname: a\noutput: text.safetensors\n"),
        [(3, "output", "is a file, an output is a folder")],
    ),
    "no data and no weights": (
        spec(
            data="dataset: {source: parquet, path: nowhere.parquet}\n",
            models="models:\n  - {name: cifar_resnet8, weights: nowhere.safetensors}\n",
        ),
        [(4, "dataset.path", "does not exist"), (6, "models[0].weights", "no such file of weights")],
    ),
    "no data, so no word about classes": (
        spec(
            data="dataset: {source: parquet, path: nowhere.parquet}\n",
            models="models:\n  - {name: cifar_resnet8, weights: unsaid.safetensors}\n",
        ),
        [(4, "dataset.path", "does not exist")],
    ),
}
