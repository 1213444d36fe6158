"""A runner that notes what it is told, and takes what its sources have when it is asked to."""

from __future__ import annotations

import threading

from streams.runner import CallRefused


class Runner:
    STALLED_S = 0.6

    def __init__(self, shares_calls=False):
        self.now = 100.0
        self.shares_calls = shares_calls
        self.sources, self.refuse = {}, None
        self.begun = threading.Event()
        """A call has been opened: for a test on another thread."""
        self.opened, self.updated, self.closed, self.signalled = [], [], [], []
        self.heard = []

    def clock(self):
        return self.now

    def has(self, call_id):
        return call_id in self.sources

    def open(self, call, paced, source):
        if self.refuse is not None:
            raise self.refuse
        if call.call_id in self.sources:
            raise CallRefused("in progress already", retryable=False)
        self.opened.append(call)
        self.sources[call.call_id] = source
        self.begun.set()

    def update(self, call):
        self.updated.append(call)

    def signal(self, event):
        self.signalled.append(event)

    def take(self, call_id):
        self.listen(call_id)

    def listen(self, call_id=None):
        for one in [call_id] if call_id is not None else list(self.sources):
            if one in self.sources:
                self.heard += self.sources[one].take()

    def hear(self, item):
        if item.call_id not in self.sources:
            raise KeyError(item.call_id)
        self.heard.append(item)

    async def close(self, call_id, reason, by=None):
        if self.sources.pop(call_id, None) is not None:
            self.closed.append((call_id, reason, by))
