"""Which ButterSink this is, looked up when asked: what finds it takes 15 ms to import."""

from __future__ import annotations


def program_version() -> str:
    """Return the version of the installed distribution."""
    from importlib.metadata import version

    return version("buttersink")
