"""Names that a data set chose: they leave no folder, are no markup, drive no terminal, and are still found."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from html_page import Page
from PIL import Image

from jobs.cli import FAILED, OK, main
from pipeline.noise import Noise
from pipeline.store import open_output

NAMES = (
    "../../escaped",
    "/etc/escaped",
    "..",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onload="alert(1)" x="',
    "' onmouseover='alert(1)",
    "</title></style></pre><b>bold</b>",
    "{{ 7 * 7 }}{% raw %}",
    "\x1b[2J\x1b]0;title\x07\x9b31m",
    "one\r\ntwo\u2028three",
    "nul\0byte",
    "\u202egnp.exe\u2066",
    "pipe|`code`*bold*[link](http://x)",
    "=1+1",
    "[bold red]markup[/]",
    "x" * 3000,
)
"""Ids, and names of classes."""

# What a terminal obeys, or turns the direction of writing; ends of lines apart.
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Ran:
    """A job over images with such names.

    Attributes:
        folder: all that the test may write is in it.
        code: the exit code.
        said: what the run printed on both streams.
    """

    folder: Path
    code: int
    said: str

    @property
    def output(self) -> Path:
        return self.folder / "work" / "out"


def write_images(file: Path) -> None:
    """A tiny image for each name, its class the same name; the last but one is damaged."""
    images = []
    for number in range(len(NAMES)):
        sink = io.BytesIO()
        pixels = Noise(1).generator("image", str(number)).integers(0, 256, (16, 16, 3))
        Image.fromarray(pixels.astype("uint8")).save(sink, "PNG")
        images.append({"bytes": sink.getvalue()[: 30 if number == len(NAMES) - 2 else None], "path": NAMES[number]})
    table = pa.table({"id": list(NAMES), "image": images, "label": list(range(len(NAMES)))})
    features = {"label": {"names": list(NAMES), "_type": "ClassLabel"}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), file)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The job, run once for all that looks at what it left."""
    folder = tmp_path_factory.mktemp("hostile")
    work = folder / "work"
    work.mkdir()
    write_images(work / "images.parquet")
    spec = {
        "version": 1,
        "name": "hostile",
        "output": str(work / "out"),
        "dataset": {"source": "parquet", "path": "images.parquet"},
        "models": [{"name": "mnist_cnn2", "weights": "random"}],
        "methods": ["random", "gradient"],
        "metrics": [{"name": "deletion", "step": 128}],
        "report": {"samples": 24},
    }
    (work / "hostile.yaml").write_text(yaml.safe_dump(spec))
    (work / "profile.yaml").write_text(yaml.safe_dump({"executor": "local", "rows": 8}))
    options = [
        "--profile",
        str(work / "profile.yaml"),
        "--junit",
        str(work / "run.xml"),
        "--log",
        str(work / "log.jsonl"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        out, err = io.StringIO(), io.StringIO()
        patch.setattr("sys.stdout", out)
        patch.setattr("sys.stderr", err)
        code = main(["run", str(work / "hostile.yaml"), *options])
    return Ran(folder, code, out.getvalue() + err.getvalue())


def shown(name: str) -> str:
    """A name as a page's text has it, spaces aside."""
    return " ".join(OBEYED.sub(lambda match: match[0].encode("unicode_escape").decode(), name).split())


def test_every_image_is_explained_but_the_damaged_one(ran: Ran) -> None:
    assert ran.code == FAILED and "1 sample failed" in ran.said
    output = open_output(ran.output)
    ids = set(output.maps(method="gradient").to_table(columns=["id"])["id"].to_pylist())
    assert ids == set(NAMES) - {NAMES[-2]}


def test_files_are_named_after_no_name_of_the_data_set(ran: Ran) -> None:
    assert {one.name for one in ran.folder.iterdir()} == {"work"}
    assert {one.name for one in (ran.folder / "work").iterdir()} == {
        *("images.parquet", "hostile.yaml", "profile.yaml", "run.xml", "log.jsonl", "out"),
    }
    for file in ran.output.rglob("*"):
        assert re.fullmatch(r"[A-Za-z0-9._=/+-]+", file.relative_to(ran.output).as_posix()), file


def test_the_page_shows_names_as_text(ran: Ran) -> None:
    text = (ran.output / "report" / "index.html").read_bytes().decode()
    assert not OBEYED.search(text)
    page = Page(text)
    for name in (*NAMES[:-2], NAMES[-1]):
        assert shown(name) in page.text, name
    assert "7 * 7" in page.text
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "b", "iframe", "object", "form"}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert all(str(attributes["src"]).startswith("data:image/") for attributes in page.attributes("img"))


def test_the_page_allows_no_script_and_no_request(ran: Ran) -> None:
    policy = next(
        str(one["content"])
        for one in Page((ran.output / "report" / "index.html").read_text()).attributes("meta")
        if one.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_the_failure_is_told_with_its_name_as_text(ran: Ran) -> None:
    page = Page((ran.output / "report" / "index.html").read_text())
    assert shown(NAMES[-2]) in page.text.partition("A sample that fails has no figure")[2]


def test_tables_hold_no_formula(ran: Ran) -> None:
    for file in ran.output.rglob("*.csv"):
        for row in csv.reader(io.StringIO(file.read_text())):
            assert not [cell for cell in row if re.match(r"[=@\t\r]|[+-](?![\d.])", cell)], file


def test_no_file_for_people_or_machines_holds_what_a_terminal_obeys(ran: Ran) -> None:
    files = [
        *ran.output.rglob("*.md"),
        *ran.output.rglob("*.csv"),
        *ran.output.rglob("*.json"),
        *ran.output.rglob("*.html"),
    ]
    files += [ran.folder / "work" / "run.xml", ran.folder / "work" / "log.jsonl"]
    assert len(files) > 10
    for file in files:
        assert not OBEYED.search(file.read_bytes().decode()), file


def test_the_junit_file_is_xml(ran: Ran) -> None:
    assert ElementTree.parse(ran.folder / "work" / "run.xml").getroot().tag == "testsuites"


def test_the_log_is_a_json_object_a_line(ran: Ran) -> None:
    lines = (ran.folder / "work" / "log.jsonl").read_text().splitlines()
    assert all(json.loads(line)["event"] for line in lines)


@pytest.fixture
def called(ran: Ran, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command in the folder, and gives what it printed on both streams."""
    monkeypatch.chdir(ran.folder / "work")

    def call(*arguments: str, code: int = OK) -> str:
        assert main(arguments) == code
        captured = capsys.readouterr()
        return captured.out + captured.err

    return call


def test_the_list_of_ids_is_a_line_each_that_a_terminal_does_not_obey(called: Callable[..., str]) -> None:
    lines = called("show", "out").splitlines()
    assert len(lines) == len(NAMES) + 1 and not OBEYED.search("".join(lines))
    assert lines[9].startswith(r"\x1b[2J") and lines[10] == r"one\r\ntwo\u2028three"


@pytest.mark.parametrize("number", [number for number in range(len(NAMES)) if number != len(NAMES) - 2])
def test_a_sample_is_drawn_under_a_name_in_this_folder(ran: Ran, called: Callable[..., str], number: int) -> None:
    # As the list shows it: a command line cannot hold a NUL, and nobody types an escape.
    listed = called("show", "out").splitlines()[number]
    before = set((ran.folder / "work").iterdir())
    said = called("show", "out", "--sample", listed)
    (new,) = set((ran.folder / "work").iterdir()) - before
    assert re.fullmatch(r"[A-Za-z0-9._+-]{1,140}\.png", new.name) and said.splitlines()[0] == new.name
    assert not OBEYED.search(said)
    assert max(Image.open(new).size) < 2000
    new.unlink()


def test_a_wrong_id_is_answered_in_one_line(called: Callable[..., str]) -> None:
    said = called("show", "out", "--sample", "\x1b[2J\nfake: line", code=2)
    assert said.count("\n") == 1 and not OBEYED.search(said)


@pytest.mark.parametrize(
    "arguments", [("history", "out"), ("history", "out", "--json"), ("status", "out"), ("show", "out", "--json")]
)
def test_what_other_commands_print_drives_no_terminal(called: Callable[..., str], arguments: tuple[str, ...]) -> None:
    assert not OBEYED.search(called(*arguments))
