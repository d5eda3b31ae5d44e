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
    try:
        library: Any = importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise RequestError(f"{wanted} needs transformers: pip install 'lth-cli[language]'") from error
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    return library
