"""The verb of a collection that loads rows. It imports what it needs when it is called."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

if TYPE_CHECKING:
    import datasets
    from typing_extensions import Unpack

    from ctspine1k.files.selection import Selection
    from ctspine1k.rows.keywords import LoadOptions, Split

__all__ = ["RowVerbs"]


class RowVerbs(abc.ABC):
    """Verbs of `ctspine1k.Collection`."""

    @abc.abstractmethod
    def selection(self) -> Selection:
        """Return the cases with a new look at the place."""

    @overload
    def load(
        self,
        name: str | None = ...,
        *,
        split: None = ...,
        streaming: Literal[False] = ...,
        **options: Unpack[LoadOptions],
    ) -> datasets.DatasetDict: ...
    @overload
    def load(
        self,
        name: str | None = ...,
        *,
        split: Split,
        streaming: Literal[False] = ...,
        **options: Unpack[LoadOptions],
    ) -> datasets.Dataset: ...
    @overload
    def load(
        self,
        name: str | None = ...,
        *,
        split: Sequence[Split],
        streaming: Literal[False] = ...,
        **options: Unpack[LoadOptions],
    ) -> list[datasets.Dataset]: ...
    @overload
    def load(
        self,
        name: str | None = ...,
        *,
        split: None = ...,
        streaming: Literal[True],
        **options: Unpack[LoadOptions],
    ) -> datasets.IterableDatasetDict: ...
    @overload
    def load(
        self,
        name: str | None = ...,
        *,
        split: Split,
        streaming: Literal[True],
        **options: Unpack[LoadOptions],
    ) -> datasets.IterableDataset: ...
    @overload
    def load(
        self,
        name: str | None = ...,
        *,
        split: Sequence[Split],
        streaming: Literal[True],
        **options: Unpack[LoadOptions],
    ) -> list[datasets.IterableDataset]: ...
    def load(
        self,
        name: str | None = None,
        *,
        split: Split | Sequence[Split] | None = None,
        streaming: bool = False,
        **options: Unpack[LoadOptions],
    ) -> Any:
        """Load rows; arguments, result and errors as for `load_dataset`.

        ``rows``, a `RowOptions`, gives the options of rows as one value; without a name, also its ``config``.
        """
        from ctspine1k.files.tokens import known_token
        from ctspine1k.rows.load import load

        selection = self.selection()
        # For workers of a DataLoader, which get the stream pickled.
        token = known_token(selection.look.place.login)
        return load(selection, name, split=split, streaming=streaming, token=token, **options)
