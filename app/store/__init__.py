"""What is kept: calls, what was said in them, alerts, the event log, accounts, who looked at what."""

from __future__ import annotations

from app.rights import ROLES
from app.store.database import Store
from app.store.users import AccountError, Person

__all__ = ["ROLES", "AccountError", "Person", "Store"]
