"""Parcels that can be kept in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from typing import Self


class Saved:
    """A parcel that can be kept in a file; how is a matter of `io.archives`, which is loaded at the first call."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one file (a zip archive of .npy arrays and JSON), whole or not at all.

        Parameters
        ----------
        path : path
            Of the file; .npz is the usual ending.

        Raises
        ------
        DataError
            The file cannot be written.
        DataTypeError
            A field holds something that such files do not hold.
        """
        from .io.archives import save_parcel

        save_parcel(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote. Nothing in the file is executed.

        Parameters
        ----------
        path : path
            Of the file.

        Raises
        ------
        DataError
            No such file, another kind of file, an unknown version of the format, or a file that is damaged.
        """
        from .io.archives import load_parcel

        return load_parcel(path, cls)
