"""Tokens: asked for unless somebody says otherwise, and kept from other users of the machine."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from cluster.security import IN_A_JOB, MODE, TOKEN, TOKEN_FILE, ask_for_tokens, keep_token
from pipeline.errors import FatalError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a token, and no variable that names one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(MODE, "token")
    for name in (TOKEN, TOKEN_FILE, IN_A_JOB):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_a_token_that_is_made_is_its_owners_alone(home: Path) -> None:
    before = os.umask(0)
    try:
        keep_token()
    finally:
        os.umask(before)
    file = home / ".ray" / "auth_token"
    assert mode(file) == 0o600 and len(file.read_text()) == 64
    assert [one.name for one in file.parent.iterdir()] == ["auth_token"]


def test_a_token_that_is_there_stays_and_is_closed_to_others(home: Path) -> None:
    file = home / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text("known")
    file.chmod(0o644)
    keep_token()
    assert file.read_text() == "known" and mode(file) == 0o600


@pytest.mark.parametrize(("name", "value"), [(MODE, "disabled"), (TOKEN, "given"), (TOKEN_FILE, "/elsewhere")])
def test_no_token_is_made_where_none_is_wanted_or_one_is_given(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    keep_token()
    assert not (home / ".ray").exists()


def test_a_home_that_cannot_be_written_is_told_with_the_mend(home: Path) -> None:
    (home / ".ray").write_text("a file")
    with pytest.raises(FatalError, match=f"auth_token: Ray's token cannot be kept there: .*{TOKEN} or {TOKEN_FILE}"):
        keep_token()


@pytest.mark.parametrize(
    ("given", "job", "expected"),
    [(None, False, "token"), ("disabled", False, "disabled"), (None, True, None), ("token", True, "token")],
)
def test_tokens_are_asked_for_unless_the_user_or_the_cluster_of_the_job_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: str | None, job: bool, expected: str | None
) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.delenv(MODE)
    if given:
        monkeypatch.setenv(MODE, given)
    if job:
        monkeypatch.setenv(IN_A_JOB, "{}")
    ask_for_tokens()
    assert os.environ.get(MODE) == expected


def test_the_mode_is_not_set_after_ray_has_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", sys)
    monkeypatch.delenv(MODE)
    ask_for_tokens()
    assert MODE not in os.environ
