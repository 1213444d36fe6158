"""Telephones: emulators that speak each protocol as its real peer does, from a recording, in real time.

For people who try their deployment (``duting phone KIND --file CALL``), for the demo and for tests.
"""
