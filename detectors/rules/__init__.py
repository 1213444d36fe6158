"""The rule language: versioned YAML in, one compiled pack out, run over calls as they are spoken."""

from detectors.rules.form import PackError, Problem
from detectors.rules.loader import DEFAULT_PACK, load_pack, load_packs, parse_pack
from detectors.rules.model import Pack, Rule

__all__ = [
    "DEFAULT_PACK",
    "Pack",
    "PackError",
    "Problem",
    "Rule",
    "load_pack",
    "load_packs",
    "parse_pack",
]
