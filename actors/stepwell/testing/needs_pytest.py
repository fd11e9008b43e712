"""Imports of pytest and pytest-trio that say what to do where they are missing."""

from __future__ import annotations

import importlib


def require_pytest(module: str) -> None:
    """Raises: `ImportError` that names the extra, if `module` cannot be used for want of pytest or pytest-trio."""
    for name in ("pytest", "pytest_trio"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(
                f"{module} needs pytest and pytest-trio, and {name} is not there: pip install 'stepwell[testing]'",
                name=name,
            ) from error
