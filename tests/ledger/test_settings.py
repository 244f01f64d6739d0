"""trail.toml: unknown keys, wrong types and newer formats are errors that name the file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import LedgerError, MalformedError, StorageError, StoreMissing, UnsupportedFormat
from ledger.layout import Layout
from ledger.settings import Settings, settings_text

PATH = Path("store/trail.toml")
HEAD = 'format = 1\norigin = "example.com/agents"\n'


def test_what_is_not_set_has_its_default() -> None:
    assert Settings.parse(HEAD, path=PATH) == Settings(origin="example.com/agents")
    assert Settings.parse(settings_text("example.com/agents"), path=PATH) == Settings(origin="example.com/agents")


@pytest.mark.parametrize(
    "field", [field for field in dataclasses.fields(Settings) if field.type in ("int", "float")], ids=lambda field: field.name
)
def test_every_number_can_be_set_and_is_checked(field: dataclasses.Field[object]) -> None:
    assert getattr(Settings.parse(HEAD + f"{field.name} = 7\n", path=PATH), field.name) == 7
    wrong = ["0", "-1", "true", '"7"', "[7]", "inf", "nan", "-inf", str(2**70), "1979-05-27"]
    if field.type == "int":
        wrong.append("7.5")
    else:
        assert getattr(Settings.parse(HEAD + f"{field.name} = 0.5\n", path=PATH), field.name) == 0.5
    for value in wrong:
        with pytest.raises(MalformedError, match=field.name) as caught:
            Settings.parse(HEAD + f"{field.name} = {value}\n", path=PATH)
        assert caught.value.path == str(PATH)


def test_urls_are_a_list_of_texts_and_each_is_checked() -> None:
    text = 'timestamp_urls = ["https://tsa.example.com/stamp?x=1", "http://[::1]:3180"]\n'
    assert Settings.parse(HEAD + text, path=PATH).timestamp_urls == ("https://tsa.example.com/stamp?x=1", "http://[::1]:3180")
    assert Settings.parse(HEAD + "timestamp_urls = []\n", path=PATH).timestamp_urls == ()
    for value in [
        '"https://a.example"',
        "[1]",
        '["ftp://a.example"]',
        '["https://"]',
        '["https://user:pw@a.example/"]',
        '["https://a b"]',
        "{}",
    ]:
        with pytest.raises(MalformedError, match="timestamp_urls") as caught:
            Settings.parse(HEAD + f"timestamp_urls = {value}\n", path=PATH)
        assert caught.value.path == str(PATH)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", UnsupportedFormat, "format None"),
        ('origin = "a"', UnsupportedFormat, "format None"),
        ("format = 2\n", UnsupportedFormat, "format 2"),
        ('format = "1"\n', UnsupportedFormat, "format '1'"),
        ("format = 1\n", MalformedError, "has no origin"),
        ('format = 1\norigin = ""\n', MalformedError, "has no origin"),
        ("format = 1\norigin = 5\n", MalformedError, "origin is a text"),
        ('format = 1\norigin = "a b"\n', MalformedError, "origin is a text"),
        ('format = 1\norigin = "a+b"\n', MalformedError, "origin is a text"),
        ('format = 1\norigin = "a\\nb"\n', MalformedError, "origin is a text"),
        (HEAD + "segment_record = 5\n", MalformedError, "unknown key 'segment_record'"),
        (HEAD + "[limits]\na = 1\n", MalformedError, "unknown key 'limits'"),
        (HEAD + "origin = 1", MalformedError, "is not TOML"),
        ("=", MalformedError, "is not TOML"),
    ],
)
def test_mistakes_are_named(text: str, error: type[LedgerError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        Settings.parse(text, path=PATH)
    assert "trail.toml" in (caught.value.path or "")


def test_an_unknown_key_is_answered_with_those_known() -> None:
    with pytest.raises(MalformedError) as caught:
        Settings.parse(HEAD + "segment_record = 5\n", path=PATH)
    assert "segment_records" in caught.value.hint


def test_no_store_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="no trail store") as caught:
        Settings.load(Layout(tmp_path))
    assert "trail init" in caught.value.hint


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "trail.toml").write_bytes(b'format = 1\norigin = "\xff"\n')
    with pytest.raises(MalformedError, match="is not UTF-8"):
        Settings.load(Layout(tmp_path))
    (tmp_path / "trail.toml").unlink()
    (tmp_path / "trail.toml").mkdir()
    with pytest.raises(StorageError):
        Settings.load(Layout(tmp_path))


@given(data=st.binary(max_size=60))
def test_any_bytes_are_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    root = tmp_path_factory.mktemp("settings")
    (root / "trail.toml").write_bytes(data)
    with pytest.raises(LedgerError):
        Settings.load(Layout(root))


def test_the_text_is_loaded_with_the_settings(tmp_path: Path) -> None:
    (tmp_path / "trail.toml").write_text(HEAD)
    assert Settings.load(Layout(tmp_path)) == (Settings(origin="example.com/agents"), HEAD)
