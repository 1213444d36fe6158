"""The dashboard has words, in both languages, for everything that the audit may say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from app.store.audit import STEPS, AuditAction

ROOT = Path(__file__).parent.parent.parent
ACTIONS = frozenset(get_args(AuditAction))
WRITES = {"record", "add", "Deed", "record_reading", "_write_down", "_record"}
"""What writes entries: called itself, or handed on to a thread."""


def written_down() -> Iterator[str]:
    """Every action that stands in the server's source where an entry is written."""
    for path in sorted((ROOT / "app").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and any(_name(one) in WRITES for one in (node.func, *node.args)):
                for given in ast.walk(node):
                    if isinstance(given, ast.Constant) and _is_action(given.value):
                        yield str(given.value)


def _name(node: ast.expr) -> str | None:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None


def _is_action(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[a-z]+\.[a-z_]+", value) is not None


@pytest.mark.parametrize("language", ["zh", "en"])
def test_each_action_has_words(language: str) -> None:
    text = (ROOT / f"dashboard/web/src/i18n/deeds.{language}.ts").read_text("utf-8")
    groups = re.findall(r"^  (\w+): \{(.*?)\},?$", text, re.MULTILINE | re.DOTALL)
    named = {f"{group}.{word}" for group, body in groups for word in re.findall(r"(\w+): '[^']+'", body)}
    assert named == ACTIONS


def test_what_is_written_down_is_known() -> None:
    found = set(written_down())
    assert found <= ACTIONS
    # Else this test would look past them.
    assert len(found | set(STEPS.values())) > len(ACTIONS) * 3 // 4, ACTIONS - found
