"""The exceptions of the edges. Each says what was expected, what came and what to do.

``retryable`` tells whether the same call may succeed later without anybody changing anything.
"""

from __future__ import annotations


class DutingError(Exception):
    """Base of all errors that a person is meant to read."""

    retryable = False


class SettingsError(DutingError):
    """A setting is missing, malformed, or contradicts another."""


class ModelError(DutingError):
    """A speech model cannot be found, is damaged, or is unknown."""


class ModelUnreachable(ModelError):
    """No source could deliver the model just now."""

    retryable = True


class MediaError(DutingError):
    """A file is not audio, is empty, or cannot be decoded."""


class IngestError(DutingError):
    """A peer broke its protocol. ``code`` is the WebSocket close code to answer with (RFC 6455, 7.4)."""

    def __init__(self, message: str, code: int = 1008) -> None:
        super().__init__(message)
        self.code = code


class Overloaded(DutingError):
    """New calls are refused for the moment so that those in progress stay whole."""

    retryable = True


class PackRefused(DutingError):
    """The rule pack has errors; all of them are in the message."""


class StoreError(DutingError):
    """The database cannot be reached, or holds a schema that this version does not know."""

    retryable = True


class ClusterError(DutingError):
    """The broker cannot be reached, or its topics are not as they have to be."""

    retryable = True


class LiveError(DutingError):
    """Redis, which holds the state that processes share, cannot be reached or refuses."""

    retryable = True
