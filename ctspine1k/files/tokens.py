"""Tokens for the Hub, kept only in this process.

A place is sent to other processes, and a cluster's scheduler stores what it is sent. So a place contains a
random key instead of the token. This process, its forks and the workers that it starts look the token up by
that key; other processes use the token that is logged in there (``HF_TOKEN``, ``hf auth login``).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["all_tokens", "clean_token", "keep_token", "known_token", "learn_tokens"]

_tokens: dict[str, str | bool] = {}


def keep_token(token: str | bool | None) -> str | None:
    """Keep a token, and return its key; None if there is no token.

    Raises:
        ValueError: it contains characters that an HTTP header cannot; the client's error would print it.
    """
    token = clean_token(token)
    if token is None:
        return None
    for key, known in _tokens.items():
        if known == token:
            return key
    key = uuid.uuid4().hex
    _tokens[key] = token
    return key


def clean_token(token: str | bool | None) -> str | bool | None:
    """Return a token without the white space around it, as read from a file; errors as for `keep_token`."""
    if isinstance(token, str):
        token = token.strip()
        if not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError("token: expected letters and digits, found other characters among them")
    return token


def known_token(key: str | None) -> str | bool | None:
    """Return the token of a key; None, for the token that is logged in, if this process does not know it."""
    return None if key is None else _tokens.get(key)


def all_tokens() -> Mapping[str, str | bool]:
    """Return the tokens by key, to pass them to a worker process of this machine when it starts."""
    return MappingProxyType(_tokens)


def learn_tokens(tokens: Mapping[str, str | bool]) -> None:
    """Keep tokens under the keys that another process has for them."""
    _tokens.update(tokens)
