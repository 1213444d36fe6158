"""A listening socket, taken before what takes long, so that a port in use is told at once."""

from __future__ import annotations

import socket

from app.errors import SettingsError


def listening_socket(host: str, port: int, setting: str) -> socket.socket:
    """``port`` 0 takes a free one; ``setting`` names what chooses another. Raises ``SettingsError``."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host}:{port}: {error.strerror}; end the program that uses it, or choose "
            f"another port with {setting}"
        ) from None
    return listener
