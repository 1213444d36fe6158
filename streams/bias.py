"""What the speech model is told of a call before it listens: the words to expect. Pure.

The text stands in front of the audio as if it had been said before; the model then leans towards its words.
It begins with what kind of speech comes, goes on with what only this call has (the product's name, the
agent's), and ends with the words of the rules in force, the most severe first: where it is too long for the
model, it loses its end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from streams.events import CallInfo

OPENING = "以下是银行客服的普通话通话。"
ATTRIBUTES = ("product", "产品", "agent_name", "坐席姓名", "座席姓名")
"""Of ``CallInfo.attributes``: those that are spoken aloud in the call."""
_LONGEST = 16
_WORD = re.compile(r"[\w·\-]+")


def bias(call: CallInfo, words: Sequence[str]) -> str:
    """The prompt's text. ``words``: from the rules in force, most severe first."""
    own = [spoken(call.attributes[name]) for name in ATTRIBUTES if name in call.attributes]
    listed = list(dict.fromkeys(word for word in (*own, *words) if word))
    return f"{OPENING}{'、'.join(listed)}。" if listed else OPENING


def spoken(value: str) -> str:
    """What of an attribute can be said aloud: one short name, without what else telephony put there."""
    found = _WORD.search(value)
    word = found.group() if found else ""
    return word if len(word) <= _LONGEST and not word.isascii() else ""
