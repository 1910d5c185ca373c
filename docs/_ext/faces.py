"""The API pages: every public name of the package, found by looking."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import stdeconv_fast

PACKAGE = "stdeconv_fast"
# What the faces give back: documented under the names of their own modules.
GIVEN_BACK = (
    "parcels.Strengths", "parcels.Graph", "studies.search.Tuning", "io.stores.SpotStore", "tissue.Tissue",
)  # fmt: skip
TITLES = {
    "tl": ("AnnData in, AnnData out: tl", "In the manner of scanpy's `tl`: `sd` is stdeconv_fast."),
    "pl": ("Pictures: pl", "In the manner of scanpy's `pl`: each takes an AnnData, a result or a table."),
    "pp": ("Preparation: pp", "In the manner of scanpy's `pp`."),
    "io": ("Files: io", "Reading any platform's folder, writing answers."),
}
# Names in single backticks that are no objects with a page: parameters, settings, words.
NO_PAGES = [
    r"[A-Za-z_][A-Za-z_0-9]*", r"(stages|procedures|kernels|backend|studies)\..*", r"(Inputs|uns|io)\..*",
    r".*=.*", r"(anndata|dask|joblib|matplotlib|numpy|pandas|scanpy|scipy|squidpy|zarr)\..*",
]  # fmt: skip


def functions_of(module: ModuleType) -> list[str]:
    """Public functions and classes of a module: its __all__, else the functions that are its own or are lent by us."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not name.startswith("_") and callable(getattr(module, name))]
    return sorted(
        name for name, value in vars(module).items()
        if not name.startswith("_") and inspect.isfunction(value) and value.__module__.startswith(PACKAGE)
    )  # fmt: skip


def groups() -> dict[str, tuple[str, str, list[str]]]:
    """Pages of the API: (title, words, full names) by file name."""
    names = [name for name in stdeconv_fast.__all__ if not name.startswith("_")]
    values = {name: getattr(stdeconv_fast, name) for name in names}
    modules = {name: value for name, value in values.items() if isinstance(value, ModuleType)}
    faults = [name for name, value in values.items() if inspect.isclass(value) and issubclass(value, Exception)]
    classes = [name for name, value in values.items() if inspect.isclass(value) and name not in faults]
    functions = [name for name in names if name not in (*modules, *faults, *classes)]

    def full(names: list[str], inside: str = "") -> list[str]:
        return [f"{PACKAGE}.{inside}{name}" for name in names]

    pages = {
        "functions": ("Functions", "Tables and arrays in, everything out.", full(functions)),
        "classes": ("Classes", "The class of the original program, settings, results, references.", full(classes)),
    }
    for name, module in modules.items():
        title, words = TITLES.get(name, (name, ""))
        pages[name] = (title, words, full(functions_of(module), f"{name}."))
    pages["given_back"] = ("What they give back", "Objects inside of results.", full(list(GIVEN_BACK)))
    pages["errors"] = ("Errors and warnings", "What each warning says and asks for: :doc:`/diagnostics`.", full(faults))
    return pages


def not_validated() -> set[str]:
    """Classes that are not made by users, as patterns: their docstrings tell attributes, not parameters."""
    patterns = set()
    for *_, names in groups().values():
        for name in names:
            value = _value_of(name)
            words = inspect.getdoc(value) or ""
            if inspect.isclass(value) and "Parameters\n---" not in words:
                patterns.add(rf"{re.escape(name)}$")
    return patterns


def _value_of(name: str) -> Any:
    home, _, own = name.rpartition(".")
    return getattr(importlib.import_module(home), own)


def write_pages(folder: Path) -> None:
    """Write a page a group, and the page of the groups; autosummary makes a page of every name from them."""
    folder.mkdir(exist_ok=True)
    found = groups()
    pages = {name: _page(*page) for name, page in found.items()}
    listed = "\n".join(f"   {name}" for name in found)
    pages["index"] = f"{_title('API')}\n.. toctree::\n   :maxdepth: 2\n\n{listed}\n"
    wanted = {f"{name}.rst" for name in pages} | {f"{name}.rst" for *_, names in found.values() for name in names}
    for path in folder.rglob("*.rst"):
        if path.name not in wanted:
            path.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n"


def _page(title: str, words: str, names: list[str]) -> str:
    words = re.sub(r"(?<!:)`([^`]+)`", r"``\1``", words)
    listed = "\n".join(f"   {name}" for name in names)
    return f"{_title(title)}\n{words}\n\n.. autosummary::\n   :toctree: names\n   :nosignatures:\n\n{listed}\n"


def resolve_short_name(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Links for names as docstrings write them: `Settings`, `tl.deconvolve`, `sd.tune`."""
    if node.get("refdomain") != "py":
        return None
    domain, target = env.get_domain("py"), node["reftarget"].removeprefix("~").removeprefix("sd.")
    for name in (f"{PACKAGE}.{target}", *(full for full in _homes() if full.endswith(f".{target}"))):
        if name in domain.objects:
            place = domain.objects[name]
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content) if place else None
    return None


def _homes() -> list[str]:
    return [name for *_, names in groups().values() for name in names]
