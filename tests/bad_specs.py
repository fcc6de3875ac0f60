"""Specs with mistakes, and what must be said of each."""

from __future__ import annotations

HEAD = "version: 1\nname: a\noutput: out\n"
DATA = "dataset: {source: digits, limit: 4}\n"
MODELS = "models:\n  - {name: cifar_resnet8, weights: random}\n"
METHODS = "methods: [gradient]\n"


def spec(head: str = HEAD, data: str = DATA, models: str = MODELS, methods: str = METHODS, rest: str = "") -> str:
    return head + data + models + methods + rest


# What is wrong, the spec, and each problem: its line (None: no line), its place, and what must be said.
BAD: dict[str, tuple[str | bytes, list[tuple[int | None, str, str]]]] = {
    # The file itself.
    "empty file": ("", [(1, "", "expected keys such as dataset, models and methods, got an empty file")]),
    "only a comment": ("# nothing\n", [(1, "", "got an empty file")]),
    "a list": ("- a\n- b\n", [(1, "", "got a list of 2")]),
    "a word": ("gradient\n", [(1, "", "got 'gradient'")]),
    "unclosed list": (HEAD + "methods: [gradient\nmodels: x\n", [(5, "", "not valid YAML")]),
    "unclosed quote": (HEAD + "dataset: 'abc\n", [(5, "", "not valid YAML")]),
    "bad indent": (HEAD + "dataset:\n  source: digits\n limit: 4\n", [(6, "", "not valid YAML")]),
    "tab": (
        HEAD + "dataset:\n\tsource: digits\n",
        [(5, "", "a tab stands here; YAML is indented with spaces")],
    ),
    "two documents": (spec() + "---\nversion: 1\n", [(8, "", "a second document starts here ('---')")]),
    "not UTF-8": (HEAD.encode() + b"# caf\xe9\n", [(4, "", "not UTF-8 text: byte 0xe9")]),
    "UTF-16": (spec().encode("utf-16"), [(1, "", "not UTF-8 text")]),
    "control character": (HEAD + "dataset: \x07\n", [(4, "", "control character '\\x07'")]),
    "key twice": (spec(rest="seed: 1\nseed: 2\n"), [(9, "seed", "stands twice, first on line 8")]),
    "inner key twice": (
        spec(data="dataset:\n  source: digits\n  limit: 1\n  limit: 2\n"),
        [(7, "dataset.limit", "stands twice, first on line 6")],
    ),
    "python tag": (
        spec(rest="report: !!python/object/apply:os.system [ls]\n"),
        [(8, "report", "expected a mapping, got a list of 1")],
    ),
    "python tag on a scalar": (
        spec(rest="seed: !!python/name:os.system x\n"),
        [(8, "seed", "the tag 'tag:yaml.org,2002:python/name:os.system' is not allowed")],
    ),
    "merge key": (
        "a: &a {source: digits}\n" + spec(data="dataset: {<<: *a}\n"),
        [(5, "dataset", "merging with '<<' is not supported")],
    ),
    "list as a key": (spec(rest="? [a]\n: 1\n"), [(8, "", "expected a plain key")]),
    "alias bomb": (
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{n}: &{n} [*{m},*{m},*{m},*{m},*{m},*{m},*{m},*{m},*{m}]\n" for m, n in zip("abcde", "bcdef", strict=True)
        ),
        [(1, "", "with every alias ('*name') followed")],
    ),
    "alias of itself": ("a: &a [*a]\n", [(1, "", "with every alias ('*name') followed")]),
    "alias of nothing": (HEAD + "dataset: *nothing\n", [(4, "", "undefined alias 'nothing'")]),
    "endless nesting": ("a: " + "[" * 5000, [(None, "", "nested too deeply")]),
    # Keys.
    "unknown key": (spec(rest="metrcs: [mar]\n"), [(8, "metrcs", "unknown key; did you mean 'metrics'?")]),
    "key of another version": (
        spec(rest="publish: {to: 1}\n"),
        [(8, "publish", "unknown key; known: version")],
    ),
    "tolerance of no metric": (
        spec(rest="metrics: [deletion]\ncompare:\n  tolerance:\n    deltion: 0.1\n    default: 0.01\n"),
        [(11, "compare.tolerance.deltion", "no metric of this job is called 'deltion'; did you mean 'deletion'?")],
    ),
    "tolerances of no measure": (
        spec(
            rest="metrics: [deletion, {name: sanity_parameters, similarity: [ssim]}, runtime]\ncompare:\n  tolerance:\n"
            "    deletion aucc: 0.5\n    'deletion ': 0.5\n    sanity_parameters spearman: 0.5\n    default auc: 0.5\n"
            "    deletion auc: 0.5\n    runtime seconds: 1.0\n    sanity_parameters ssim: 0.5\n"
        ),
        [
            (11, "compare.tolerance.deletion aucc", "deletion has no measure 'aucc'; did you mean 'auc'?"),
            (12, "compare.tolerance.deletion ", "deletion has no measure ''; known: auc"),
            (13, "compare.tolerance.sanity_parameters spearman", "no measure 'spearman'; known: ssim"),
            (14, "compare.tolerance.default auc", "default is for all metrics without a tolerance of their own"),
        ],
    ),
    "tolerance that is no number": (
        spec(rest="compare: {tolerance: {default: '0.1'}}\n"),
        [(8, "compare.tolerance.default", "expected a number of at least 0, got '0.1'; take the quotes off")],
    ),
    "tolerance below nothing": (
        spec(rest="compare: {tolerance: {default: -0.1}}\n"),
        [(8, "compare.tolerance.default", "expected a number of at least 0, got -0.1")],
    ),
    "tolerance without a metric": (
        spec(rest="compare: {tolerance: 0.1}\n"),
        [(8, "compare.tolerance", "expected a mapping, got 0.1")],
    ),
    "misspelled required key": (
        spec(data="datset: {source: digits}\n"),
        [(4, "datset", "unknown key; did you mean 'dataset'?")],
    ),
    "missing keys": (
        "version: 1\n",
        [
            (1, "name", "missing; expected text"),
            (1, "output", "missing; expected text"),
            (1, "dataset", "missing; expected a mapping"),
            (1, "models", "missing; expected a list"),
            (1, "methods", "missing; expected a list"),
        ],
    ),
    "unknown key of a method": (
        spec(methods="methods:\n  - gradient\n  - {name: agi, stepz: 5}\n"),
        [(9, "methods[1].stepz", "unknown key for agi; did you mean 'steps'?")],
    ),
    "unknown key of a metric": (
        spec(rest="metrics:\n  - {name: mar, gird: 5}\n"),
        [(9, "metrics[0].gird", "unknown key for mar; did you mean 'grid'?")],
    ),
    "unknown key of a source": (
        spec(data="dataset:\n  source: digits\n  limt: 4\n"),
        [(6, "dataset.limt", "unknown key for digits; did you mean 'limit'?")],
    ),
    "key of another source": (
        spec(data="dataset: {source: digits, train_path: x}\n"),
        [(4, "dataset.train_path", "unknown key for digits")],
    ),
    "unknown key of a model": (
        spec(models="models:\n  - name: cifar_resnet8\n    weigths: random\n"),
        [(7, "models[0].weigths", "unknown key; did you mean 'weights'?")],
    ),
    "unknown key of training": (
        spec(models="models:\n  - name: cifar_resnet8\n    weights: train\n    training: {epoch: 3}\n"),
        [(8, "models[0].training.epoch", "unknown key for training; did you mean 'epochs'?")],
    ),
    "unknown key of report": (
        spec(rest="report: {sample: 3}\n"),
        [(8, "report.sample", "unknown key for report; did you mean 'samples'?")],
    ),
    # Names.
    "unknown method": (
        spec(methods="methods: [gradient, integrated_gradient]\n"),
        [
            (
                7,
                "methods[1].name",
                "unknown method 'integrated_gradient'; did you mean 'integrated_gradients'?",
            )
        ],
    ),
    "unknown metric": (
        spec(rest="metrics:\n  - name: deletoin\n"),
        [(9, "metrics[0].name", "unknown metric 'deletoin'; did you mean 'deletion'?")],
    ),
    "unknown source": (
        spec(data="dataset: {source: digit}\n"),
        [(4, "dataset.source", "unknown source 'digit'; did you mean 'digits'?")],
    ),
    "unknown model": (
        spec(models="models:\n  - {name: cifar_resnet21, weights: random}\n"),
        [(6, "models[0].name", "; did you mean 'cifar_resnet")],
    ),
    "no method name": (
        spec(methods="methods:\n  - {steps: 5}\n"),
        [(8, "methods[0].name", "missing; expected one of random, gradient")],
    ),
    "no source": (
        spec(data="dataset: {limit: 4}\n"),
        [(4, "dataset.source", "missing; expected one of digits")],
    ),
    "method twice": (
        spec(methods="methods:\n  - gradient\n  - agi\n  - {name: agi, steps: 5}\n"),
        [(10, "methods[2]", "two methods are called 'agi': give one of them an id")],
    ),
    "model twice": (
        spec(models=MODELS + "  - {name: cifar_resnet8, weights: train}\n"),
        [(7, "models[1]", "two models are called 'cifar_resnet8': give one of them an id")],
    ),
    "id for no folder": (
        spec(methods="methods:\n  - {name: agi, id: a/b}\n"),
        [(8, "methods[0].id", "expected letters, digits and . _ + -, got 'a/b'")],
    ),
    "job name with a blank": (
        spec(head="version: 1\nname: a b\noutput: out\n"),
        [(2, "name", "expected letters, digits and . _ -, got 'a b'")],
    ),
    # Types and ranges.
    "version": (spec(head="version: 2\nname: a\noutput: out\n"), [(1, "version", "expected 1, got 2")]),
    "text for a number": (
        spec(methods="methods:\n  - {name: agi, steps: twenty}\n"),
        [(8, "methods[0].steps", "expected a whole number of at least 1, got 'twenty'")],
    ),
    "quoted number": (spec(rest="seed: '3'\n"), [(8, "seed", "got '3'; take the quotes off")]),
    "number for text": (
        spec(head="version: 1\nname: 7\noutput: out\n"),
        [(2, "name", "got 7; put it in quotes")],
    ),
    "fraction for a whole number": (
        spec(rest="report: {samples: 2.5}\n"),
        [(8, "report.samples", "got 2.5")],
    ),
    "true for a number": (
        spec(rest="seed: true\n"),
        [(8, "seed", "expected a whole number from 0 to 9223372036854775807, got true")],
    ),
    "nothing for a number": (spec(rest="seed:\n"), [(8, "seed", "got nothing")]),
    "negative": (
        spec(rest="seed: -1\n"),
        [(8, "seed", "expected a whole number from 0 to 9223372036854775807, got -1")],
    ),
    "seed past 63 bits": (spec(rest=f"seed: {2**63}\n"), [(8, "seed", "from 0 to 9223372036854775807, got")]),
    "crop larger than resize": (
        spec(data="dataset: {source: digits, resize: 16, crop: 24}\n"),
        [(4, "dataset.crop", "crop 24 is larger than resize 16, the short side of the images; raise resize")],
    ),
    "huge crop": (
        spec(data="dataset: {source: digits, crop: 100000, resize: 4097}\n"),
        [(4, "dataset.resize", "from 1 to 4096, got 4097"), (4, "dataset.crop", "from 1 to 4096, got 100000")],
    ),
    "past the range": (
        spec(methods="methods:\n  - {name: agi, step_size: 2}\n"),
        [(8, "methods[0].step_size", "expected a number above 0 and of at most 1, got 2")],
    ),
    "share past 1": (
        spec(rest="max_failed_share: 3\n"),
        [(8, "max_failed_share", "expected a number from 0 to 1")],
    ),
    "not a number": (spec(rest="max_failed_share: .nan\n"), [(8, "max_failed_share", "got nan")]),
    "infinite": (spec(rest="max_failed_share: 1e999\n"), [(8, "max_failed_share", "got inf")]),
    "endless digits": (spec(rest=f"seed: {'9' * 5000}\n"), [(8, "seed", "not a number")]),
    "wrong word": (
        spec(methods="methods:\n  - {name: agi, output: probabilty}\n"),
        [(8, "methods[0].output", "got 'probabilty'; did you mean 'probability'?")],
    ),
    "word for a list": (
        spec(methods="methods: gradient\n"),
        [(7, "methods", "expected a list of one or more entries, got 'gradient'")],
    ),
    "number for a method": (
        spec(methods="methods: [5]\n"),
        [(7, "methods[0]", "expected a method's name, or a mapping with one, got 5")],
    ),
    "word for a model": (
        spec(models="models: [cifar_resnet8]\n"),
        [(5, "models[0]", "expected a mapping, got 'cifar_resnet8'")],
    ),
    "no methods": (
        spec(methods="methods: []\n"),
        [(7, "methods", "expected a list of one or more entries, got an empty list")],
    ),
    "no models": (spec(models="models: []\n"), [(5, "models", "got an empty list")]),
    "two means": (
        spec(models="models:\n  - {name: cifar_resnet8, weights: random, mean: [0.5, 0.5]}\n"),
        [(6, "models[0].mean", "expected a list of 3 numbers, got a list of 2")],
    ),
    "training beside a file": (
        spec(models="models:\n  - {name: cifar_resnet8, weights: random,\n     training: {epochs: 1}}\n"),
        [(7, "models[0].training", "training is for weights: train, but weights is 'random'")],
    ),
    "weights of no kind": (
        spec(models="models:\n  - {name: cifar_resnet8, weights: trian}\n"),
        [(6, "models[0].weights", "expected a file ending in .safetensors")],
    ),
    # Sweeps.
    "sweep of no list": (
        spec(methods="methods:\n  - {name: agi, sweep: {steps: 5}}\n"),
        [(8, "methods[0].sweep.steps", "expected a list of values, got 5")],
    ),
    "empty sweep": (
        spec(methods="methods:\n  - {name: agi, sweep: {}}\n"),
        [(8, "methods[0].sweep", "expected parameters with lists of values, got a mapping")],
    ),
    "bad value in a sweep": (
        spec(methods="methods:\n  - name: agi\n    sweep:\n      steps: [1, 0]\n"),
        [(10, "methods[0].sweep.steps[1]", "expected a whole number of at least 1, got 0")],
    ),
    "unknown parameter in a sweep": (
        spec(methods="methods:\n  - {name: agi, sweep: {step: [1, 2]}}\n"),
        [(8, "methods[0].sweep.step", "unknown key for agi; did you mean 'steps'?")],
    ),
    "swept and set": (
        spec(methods="methods:\n  - {name: agi, steps: 3, sweep: {steps: [1, 2]}}\n"),
        [(8, "methods[0].sweep.steps", "also set beside the sweep")],
    ),
    "huge grid": (
        spec(methods=f"methods:\n  - {{name: agi, sweep: {{steps: {list(range(1, 1200))}}}}}\n"),
        [(8, "methods[0].sweep", "a grid of 1199 points; at most 1000 are taken")],
    ),
    "everything at once": (
        spec(
            data="dataset: {source: digits, limit: 0}\n",
            models="models:\n  - {name: resnet, weights: random}\n",
            methods="methods: [gradint]\n",
            rest="metrics: [mra]\n",
        ),
        [
            (4, "dataset.limit", "at least 1, got 0"),
            (6, "models[0].name", "is not known"),
            (7, "methods[0].name", "did you mean 'gradient'?"),
            (8, "metrics[0].name", "did you mean 'mar'?"),
        ],
    ),
}
