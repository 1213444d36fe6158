"""Alembic's migrations; ``app.store.database`` runs them when the store is opened."""
