"""What is kept: calls, what was said in them, alerts, the event log, accounts, who looked at what."""

from __future__ import annotations

from app.store.database import Store
from app.store.users import ROLES, AccountError, Person

__all__ = ["ROLES", "AccountError", "Person", "Store"]
