"""Threads of this process."""

import threading


def prefetching() -> list[threading.Thread]:
    """Those that make items before somebody asks for them."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("ctspine1k-prefetch")]
