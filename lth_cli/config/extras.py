"""Libraries that not everybody has installed."""

from __future__ import annotations

import importlib
import os
from typing import Any

from lth_cli.config.errors import RequestError


def transformers(wanted: str) -> Any:
    """The library transformers, which here never looks for anything on a network.

    Args:
        wanted: what it is needed for, for the message.

    Raises:
        RequestError: it is not installed.
    """
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[name] = "1"  # read when it is imported
    library = _language("transformers", wanted)
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    return library


def pyarrow(wanted: str) -> Any:
    """The library pyarrow with its readers. Arguments and errors as `transformers`."""
    library = _language("pyarrow", wanted)
    for part in ("ipc", "parquet"):
        importlib.import_module(f"pyarrow.{part}")
    return library


def _language(name: str, wanted: str) -> Any:
    """A library of the extra `language`. Raises RequestError: it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise RequestError(f"{wanted} needs {name}: pip install 'lth-cli[language]'") from error
