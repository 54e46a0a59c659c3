"""Verbs of a collection, called with all that they need at once."""

from __future__ import annotations

import ctspine1k

#: What says where files are; the rest selects cases, or is an option of the verb.
_PLACE = ("name", "data_dir", "repo_id", "revision", "split_file", "token")


def chosen(*, cases=None, **options) -> ctspine1k.Collection:
    """A collection of the cases that are meant."""
    place = {name: options.pop(name) for name in _PLACE if name in options}
    collection = ctspine1k.open_collection(**place)
    return (collection if cases is None else collection.select(cases)).where(**options)


def _called(verb, names, arguments, options):
    own = {name: options.pop(name) for name in names if name in options}
    return getattr(chosen(**options), verb)(*arguments, **own)


def scan_files(**options):
    """What `Collection.scan` returns."""
    return _called(
        "scan",
        ("out", "reading", "other_labels", "on_voxels", "num_proc", "scheduler", "on_missing"),
        (),
        options,
    )


def verify_files(**options):
    """What `Collection.verify` returns."""
    if "table" in options:
        options["scan"] = options.pop("table")
    return _called(
        "verify",
        ("scan", "reread", "reading", "other_labels", "on_voxels", "num_proc", "scheduler"),
        (),
        options,
    )
