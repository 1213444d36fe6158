"""The names of our metrics, read in the sources: no import, so that nothing is registered twice."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def metrics() -> dict[str, set[str]]:
    """Every series that Prometheus gets from us, as it is named there, and its labels."""
    found: dict[str, set[str]] = {}
    for folder in ("app", "streams", "detectors", "dashboard"):
        for path in (ROOT / folder).rglob("*.py"):
            if "node_modules" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    found.update(_series(node.func.id, node))
    return found


def _series(kind: str, call: ast.Call) -> dict[str, set[str]]:
    if kind not in ("Counter", "Gauge", "Histogram") or not call.args:
        return {}
    name = call.args[0]
    if not isinstance(name, ast.Constant) or not str(name.value).startswith("duting_"):
        return {}
    given = call.args[2] if len(call.args) > 2 else None
    given = next((word.value for word in call.keywords if word.arg == "labelnames"), given)
    labels = set(ast.literal_eval(given)) if given is not None else set()
    if kind == "Counter":
        return {str(name.value).removesuffix("_total") + "_total": labels}
    if kind == "Histogram":
        parts = {"_bucket": {"le"}, "_sum": set(), "_count": set()}
        return {f"{name.value}{part}": labels | more for part, more in parts.items()}
    return {str(name.value): labels}


def named(text: str) -> set[str]:
    """The series of ours that a text names."""
    return set(re.findall(r"\bduting_[a-z0-9_]+", text))
