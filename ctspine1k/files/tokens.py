"""Tokens for the Hub, kept in this process alone.

A place is sent to other processes, and a cluster's scheduler keeps what it is sent. So it names the token
that was given by a key that says nothing, under which this process, those that it forks and the workers that
it starts know it. Elsewhere the token is the one that is logged in there (``HF_TOKEN``, ``hf auth login``).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["all_tokens", "keep_token", "known_token", "learn_tokens"]

_tokens: dict[str, str | bool] = {}


def keep_token(token: str | bool | None) -> str | None:
    """Keep a token, and return the key under which it is known; None for none.

    Raises:
        ValueError: it holds characters that no header can carry; the client would print it.
    """
    if isinstance(token, str):
        token = token.strip()  # as read from a file
        if not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError("token: expected letters and digits, found other characters among them")
    if token is None:
        return None
    for key, known in _tokens.items():
        if known is token or (known == token and type(known) is type(token)):
            return key
    key = uuid.uuid4().hex
    _tokens[key] = token
    return key


def known_token(key: str | None) -> str | bool | None:
    """Return the token of a key; None, for the one that is logged in, where this process does not know it."""
    return None if key is None else _tokens.get(key)


def all_tokens() -> Mapping[str, str | bool]:
    """Return the tokens by key, to hand them to a worker process of this machine as it starts."""
    return MappingProxyType(_tokens)


def learn_tokens(tokens: Mapping[str, str | bool]) -> None:
    """Keep these tokens, which another process knows by these keys."""
    _tokens.update(tokens)
