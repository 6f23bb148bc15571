"""Models made on the page: names, who may change them, removal."""

from __future__ import annotations

from pathlib import Path

import pytest

from captcha_reader.errors import UserError
from captcha_reader.web.own_models import (
    Maker,
    check_name,
    delete,
    free_name,
    label_of,
    may_change,
    rename,
    write_marker,
)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in ("shop", "theirs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.onnx").write_bytes(b"onnx")
    write_marker(tmp_path / "shop", Maker("me", "reader.onnx", 40))
    (tmp_path / "reader.onnx").write_bytes(b"onnx")
    return tmp_path


def test_names_that_people_type():
    assert check_name("  my   shop (2) ") == "my shop (2)"
    assert check_name("Cafe\u0301-1.5") == "Caf\u00e9-1.5"
    odd = ("a.", "<b>", "a\0", "-x", "a:b", "a\ud800")
    for bad in ("", "  ", ".hidden", "a/b", "a\\b", "..", "nul", "COM1.x", "x" * 41, *odd):
        with pytest.raises(UserError, match="name"):
            check_name(bad)


def test_only_who_made_a_model_changes_it(models: Path):
    assert may_change(models, "shop/best.onnx", "me", local=False)
    assert not may_change(models, "shop/best.onnx", "you", local=False)
    assert may_change(models, "shop/best.onnx", "you", local=True)
    assert not may_change(models, "theirs/best.onnx", "me", local=True), "it was not made on the page"
    assert not may_change(models, "reader.onnx", "me", local=True)
    (models / "theirs" / "page.json").write_text("[1]")
    assert not may_change(models, "theirs/best.onnx", "me", local=False)


def test_a_model_gets_another_name_and_goes(models: Path):
    assert rename(models, "shop/best.onnx", "Shop") == "Shop/best.onnx"
    with pytest.raises(UserError, match="already"):
        rename(models, "Shop/best.onnx", "THEIRS")
    assert rename(models, "Shop/best.onnx", "new shop") == "new shop/best.onnx"
    assert label_of("new shop/best.onnx") == "new shop (onnx)" and label_of("reader.onnx") == "reader.onnx"
    assert free_name(models, "new shop") == "new shop 2"
    delete(models, "new shop/best.onnx")
    assert {path.name for path in models.iterdir()} == {"theirs", "reader.onnx"}
    with pytest.raises(UserError, match="cannot be renamed"):
        rename(models, "new shop/best.onnx", "x")


def test_a_name_that_stays_changes_nothing_and_what_is_gone_is_said(models: Path):
    assert rename(models, "shop/best.onnx", " shop ") == "shop/best.onnx" and (models / "shop").is_dir()
    with pytest.raises(UserError, match=r"the model cannot be removed \(.*\): reload the page"):
        delete(models, "gone/best.onnx")
    assert sorted(path.name for path in models.iterdir()) == ["reader.onnx", "shop", "theirs"]
