"""The two ways a request can go wrong, both shown as one clear message."""

from __future__ import annotations


class LthError(Exception):
    """Something failed while doing what was asked (exit code 1)."""


class RequestError(LthError):
    """The request itself cannot be met: the message says where, what was wrong and what would work (exit code 2)."""


class ConfigError(RequestError):
    """One or more mistakes in a config, all reported at once.

    Args:
        problems: (config path, what is wrong and what would be accepted) pairs.
    """

    def __init__(self, *problems: tuple[str, str]) -> None:
        self.problems = problems
        super().__init__("\n".join(f"{path}: {message}" if path else message for path, message in problems))
