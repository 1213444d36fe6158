"""``python -m app`` is the command ``duting``."""

from app.cli import main

main()
