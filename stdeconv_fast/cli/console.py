"""How the commands talk: faults as one message, warnings as one line each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import click

from .words import to_options

EXIT_CODES = (
    "Exit codes: 0 done; 1 a fault of the program; 2 input, settings or options that cannot be used; 3 a file of a "
    "batch failed (run), or compiled kernels cannot be kept (warmup); 130 interrupted; 143 terminated (SIGTERM)."
)


def reporting(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the errors that users can mend into one message and exit code 2; an interrupt into 130, SIGTERM into 143."""

    @wraps(command)
    def wrapped(**options: Any) -> None:
        from ..errors import DataError, DeviceError

        try:
            with _ended_by_exception():
                command(**options)
        except (DataError, DeviceError) as fault:
            fail(to_options(str(fault)))
        except MemoryError:
            fail("there is not enough memory for this run.")
        except OSError as fault:
            where = f": {fault.filename}" if fault.filename else ""
            fail(f"{fault.strerror or fault}{where}")
        except KeyboardInterrupt:
            click.echo("stdeconv-fast: interrupted", err=True)
            sys.exit(130)
        except _Terminated:
            click.echo("stdeconv-fast: terminated", err=True)
            sys.exit(143)

    return wrapped


class _Terminated(BaseException):
    """SIGTERM came."""


@contextmanager
def _ended_by_exception() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that what is half-written is removed; a handler of the caller stays."""
    import signal
    import threading

    def end(number: int, frame: Any) -> None:
        raise _Terminated

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def fail(message: str) -> None:
    click.echo(f"stdeconv-fast: error: {message}", err=True)
    sys.exit(2)


@contextmanager
def plain_warnings(quiet: bool, about: str = "") -> Iterator[None]:
    """Warnings that users should see, as one line each on stderr, with `about` before their text."""
    import warnings

    said = set()

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        text = to_options(" ".join(str(message).split()))
        if not quiet and text not in said:
            said.add(text)
            click.echo(f"warning: {about}{text}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.showwarning = show
        yield


def say_smoothing(lambda_spatial: float, phi: float, tuned: bool) -> str:
    how = "chosen from the data" if tuned else "as set"
    return f"lambda_spatial {lambda_spatial:g} counts, phi {phi:g}, {how}" if lambda_spatial else f"none, {how}"
