"""Addresses with credentials are refused, and texts of others lose them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from jobs.cli import MISTAKE, main
from pipeline.credential import refuse_credentials, without_credentials
from pipeline.errors import FatalError
from pipeline.store import open_output

HELD = [
    "s3://AKIAX:hunter2@bucket/prefix",
    "s3://hunter2@bucket/prefix",
    "s3://bucket/prefix?access_key=hunter2",
    "s3://bucket/prefix?region=x&session_token=hunter2",
    "https://bucket.s3.amazonaws.com/x?X-Amz-Signature=hunter2",
    "gs://bucket/x?GoogleAccessId=a&Signature=hunter2",
    "abfs://container@account/x?sig=hunter2",
    "s3://AKIAX:sEc/hunter2@bucket/prefix",
    "s3://bucket/prefix?endpoint_override=http://user:hunter2@host:9000",
    "s3://bucket/prefix?endpoint_override=http%3A%2F%2Fuser%3Ahunter2%40host",
    "s3://bucket/prefix?endpoint_override=user:hunter2@host:9000",
    "s3://bucket/prefix?pass=hunter2",
    "gs://bucket/prefix?authorization=hunter2",
]
PLAIN = [
    "/data/a@b:c?key=1",
    "runs/out",
    "s3://bucket/prefix?region=eu-west-1&endpoint_override=localhost:9000&scheme=http",
    "gs://anonymous@bucket/prefix",
    "s3://bucket/a@b",
]


@pytest.mark.parametrize("address", HELD)
def test_an_address_with_credentials_is_refused_without_repeating_them(address: str) -> None:
    with pytest.raises(FatalError, match="AWS_SECRET_ACCESS_KEY") as error:
        refuse_credentials(address)
    assert "hunter2" not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("address", PLAIN)
def test_an_address_without_any_is_fine(address: str) -> None:
    refuse_credentials(address)
    assert without_credentials(address) == address or "@" in address


def test_an_output_with_credentials_is_never_opened() -> None:
    with pytest.raises(FatalError, match="credentials") as error:
        open_output(HELD[0])
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("key", ["output", "dataset.path", "weights"])
def test_a_spec_with_credentials_is_refused_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    spec = {
        "version": 1,
        "name": "leaky",
        "output": str(tmp_path / "out"),
        "dataset": {"source": "parquet", "path": "s3://bucket/x.parquet"},
        "models": [{"name": "mnist_cnn2", "weights": "random"}],
        "methods": ["gradient"],
    }
    file = tmp_path / "leaky.yaml"
    if key == "output":
        spec["output"] = HELD[0]
    elif key == "weights":
        spec["models"] = [{"name": "mnist_cnn2", "weights": HELD[0]}]
    else:
        spec["dataset"] = {"source": "parquet", "path": HELD[0]}
    file.write_text(yaml.safe_dump(spec))
    assert main(["run", str(file), "--profile", "local"]) == MISTAKE
    captured = capsys.readouterr()
    assert "leaky.yaml:" in captured.err and key in captured.err and "hunter2" not in captured.err + captured.out
    assert not list((tmp_path / "out").rglob("*.json"))
    for words in (["validate", "--json"], ["validate"], ["schedule", "--cron", "0 3 * * 1", "--target", "cron"]):
        assert main([words[0], str(file), *words[1:]]) == MISTAKE
        captured = capsys.readouterr()
        assert "credentials" in captured.err + captured.out and "hunter2" not in captured.err + captured.out


def test_a_secret_with_a_slash_is_hidden_in_texts() -> None:
    text = "s3://AKIAX:sEc/hun/ter2@bucket/a failed, http://host:9000/a/b@c did not"
    assert without_credentials(text) == "s3://…@bucket/a failed, http://host:9000/a/b@c did not"


def test_an_unknown_option_is_named_without_its_value() -> None:
    with pytest.raises(FatalError, match="no option 'regoin'; did you mean 'region'") as error:
        open_output("s3://bucket/prefix?regoin=hunter2")
    assert "hunter2" not in str(error.value)


def test_a_text_loses_what_is_secret_and_keeps_the_rest() -> None:
    text = "PUT s3://AKIAX:hunter2@bucket/a?region=x then https://h/p?token=hunter2&page=3 failed with 403"
    found = without_credentials(text)
    assert found == "PUT s3://…@bucket/a?region=x then https://h/p?token=…&page=3 failed with 403"


def test_what_only_looks_like_a_user_stays() -> None:
    text = "mail a@b.c, path /x/y@z, s3://bucket/key@2 and 3:4@5"
    assert without_credentials(text) == text
