"""The errors and warnings that users of the package meet."""

from __future__ import annotations


class DataError(ValueError):
    """A value in the data or the settings that cannot be used; the message names it, its place and the remedy."""


class DataTypeError(TypeError, DataError):
    """An object of a kind that cannot be used (it is a TypeError and a DataError at once)."""


class MemoryLimitError(MemoryError, DataError):
    """A run that needs more memory than there is (it is a MemoryError and a DataError at once)."""


class DeviceError(RuntimeError):
    """The hardware or the package that a device needs is missing."""


class DataWarning(UserWarning):
    """Data that is used, but not all of it or not as it stands."""
