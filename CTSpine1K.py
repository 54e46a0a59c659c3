"""The loading script of CTSpine1K, for `datasets` 3.x. The builder is in the package `ctspine1k`.

`datasets` 4 and later run no scripts: call `ctspine1k.load_dataset` there (and here, too).
"""

try:
    from ctspine1k.rows.builder import CTSpine1K
except ImportError as error:
    raise ImportError(
        f"this script needs the package ctspine1k ({error}): run `pip install .` in a checkout of "
        "the repository that contains both."
    ) from error

__all__ = ["CTSpine1K"]
