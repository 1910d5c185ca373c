"""The rules of the house: who imports whom, how the package is packed, what a file may be."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
import warnings
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import stdeconv_fast

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, KERNELS = ROOT / "stdeconv_fast", ROOT / "kernels"

# Top to bottom: a module imports from floors below its own only. Every module of the package has its place here
# (files inside a package that is named here share its place).
FLOORS = {
    "faces": ("", "attention_regression_deconv", "cli", "pl", "pp", "tl"),
    "studies": ("pages", *(f"studies.{name}" for name in (
        "disturbances", "plots", "references", "search", "sweeps", "trials",
    ))),
    "side rooms": ("io", "scoring", "tissue"),
    "pipeline": ("pipeline",),
    "procedures": tuple(
        f"procedures.{name}"
        for name in (
            "passes", "strengths", "uncertainty", "pieces", "in_pieces", "tiles", "tile_jobs", "missing", "original",
            "provenance",
        )
    ),
    "stages": tuple(
        f"stages.{name}"
        for name in ("inputs", "ingest", "reference", "graph", "attention", "solve_types", "refine_cells", "aggregate",
                     "original")
    ),
    "ground": (
        "backend", "built", "draws", "errors", "memory", "original_draws", "parallel", "parcels", "saved", "settings",
        "thresholds", "uploads", "work_folder",
    ),
    "kernels": (
        "kernels.compile",
        "kernels.lanes",
        "kernels.newton",
        "kernels.cuda.loader",
        *(
            f"kernels.cpu.{name}"
            for name in (
                "attention", "cells", "counts", "fits", "laplacian", "least_squares", "neighbours", "presence",
                "shares", "spots",
            )
        ),
    ),
}  # fmt: skip
# What neighbours on one floor may import from each other ("" is stdeconv_fast/__init__.py, which knows all faces).
OPEN_TO_NEIGHBOURS = {
    "", "pl", "tl", *FLOORS["ground"], "kernels.compile", "kernels.lanes", "kernels.newton", "studies.disturbances",
    "studies.trials",
    *(f"procedures.{name}" for name in ("passes", "provenance", "uncertainty", "pieces", "tiles", "tile_jobs")),
}  # fmt: skip
SIDE_ROOMS_MAY_IMPORT = {"built", "errors", "parcels", "settings"}
# The one way up: Result.save and .load fetch the code that writes files when they are called.
MAY_FETCH_ABOVE = {("saved", "io.archives")}
KERNELS_MAY_IMPORT = {
    "__future__", "collections", "dataclasses", "functools", "hashlib", "llvmlite", "math", "numba", "numpy", "pathlib",
    "re", "typing",
}  # fmt: skip

MEND_THE_LINK = (
    "stdeconv_fast/kernels must be a link to ../kernels. Mend it in the repository's root: "
    "rm -rf stdeconv_fast/kernels && ln -s ../kernels stdeconv_fast/kernels "
    "(a clone on Windows needs: git config core.symlinks true)."
)
PAGE = (".html", ".css", ".js")  # what a page is made of
HEAVY = ("anndata", "click", "cupy", "joblib", "matplotlib", "numba", "numpy", "pandas", "scipy", "tqdm")


def sources() -> dict[str, Path]:
    """Every module of the package by its name without "stdeconv_fast."; the package itself is ""."""
    files = [path for path in PACKAGE.rglob("*.py") if PACKAGE / "kernels" not in path.parents]
    named = {path: path.relative_to(PACKAGE) for path in files}
    named |= {path: Path("kernels") / path.relative_to(KERNELS) for path in KERNELS.rglob("*.py")}
    return {".".join(name.with_suffix("").parts).removesuffix("__init__").strip("."): p for p, name in named.items()}


SOURCES = sources()
PACKAGES = {name for name, path in SOURCES.items() if path.name == "__init__.py"}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}
ROOMS = {room: floor for floor, rooms in FLOORS.items() for room in rooms}


def room_of(module: str) -> str | None:
    """The place of a module in FLOORS: its own name or that of the package around it."""
    while module not in ROOMS and "." in module:
        module = module.rpartition(".")[0]
    return module if module in ROOMS else None


def imports_of(module: str) -> tuple[set[str], set[str]]:
    """Modules of the package, and other top-level packages, that a module imports anywhere in its text.

    What it imports for type checkers alone, under `if TYPE_CHECKING`, does not count.
    """
    ours, others = set(), set()

    def add(name: str) -> None:
        top, _, rest = name.partition(".")
        if top == "stdeconv_fast":
            while rest and rest not in SOURCES:
                rest = rest.rpartition(".")[0]
            ours.add(rest)
        else:
            others.add(top)

    package = module if module in PACKAGES else module.rpartition(".")[0]
    for node in walk_what_runs(TREES[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                add(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = ["stdeconv_fast", *filter(None, package.split("."))]
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            for alias in node.names:
                add(f"{base}.{alias.name}" if base.startswith("stdeconv_fast") else base)
    return ours - {module}, others


def imports_at_once(module: str) -> set[str]:
    """What a module imports from the package when it is loaded itself, outside of functions."""
    tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [ast.Pass()]
    TREES[module], whole = tree, TREES[module]
    try:
        return imports_of(module)[0]
    finally:
        TREES[module] = whole


def walk_what_runs(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree, without the bodies of `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in node.orelse:
                yield other
                yield from walk_what_runs(other)
        else:
            yield node
            yield from walk_what_runs(node)


def in_new_process(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# -- imports ---------------------------------------------------------------------------------------------------------


def test_import_is_light():
    loaded = in_new_process(
        "import sys, stdeconv_fast as s; s.Settings(), s.DataError, s.Result, s.__version__, dir(s); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert loaded == "[]", f"import stdeconv_fast must not load other packages; it loads {loaded}"


@pytest.mark.parametrize("name", stdeconv_fast.__all__)
def test_every_public_name_is_there(name):
    assert name in dir(stdeconv_fast)
    assert getattr(stdeconv_fast, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'deconvolute'"):
        _ = stdeconv_fast.deconvolute


def test_type_checkers_see_the_same_names():
    imports = [node for node in ast.walk(TREES[""]) if isinstance(node, ast.ImportFrom) and node.level]
    seen = {alias.name for node in imports for alias in node.names} | {"__version__"}
    assert seen == set(stdeconv_fast.__all__)


def test_every_module_has_its_floor():
    homeless = [name for name in SOURCES if room_of(name) is None and not is_bare_package(name)]
    assert not homeless, f"no place in FLOORS for {homeless}: give each a name and a floor from architecture.md"


def is_bare_package(name: str) -> bool:
    """A package whose own file holds nothing but words (and the refusal of a wrong name)."""
    return name in PACKAGES and not any(imports_of(name))


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_run_down(module):
    ours, others = imports_of(module)
    own_room = room_of(module)
    order = list(FLOORS)
    for target in ours:
        room = room_of(target)
        if (module, target) in MAY_FETCH_ABOVE:
            assert target not in imports_at_once(module), f"{module} may import {target} inside of functions only"
            continue
        if room is None:
            assert is_bare_package(target), f"{target} has no floor"
            continue
        if room == own_room:
            continue
        floor, other = order.index(ROOMS[own_room]), order.index(ROOMS[room])
        assert other > floor or (other == floor and (own_room == "" or room in OPEN_TO_NEIGHBOURS)), (
            f"{module} ({ROOMS[own_room]}) imports {target} ({ROOMS[room]}): imports run down only"
        )
        if ROOMS[own_room] == "side rooms":
            assert room in SIDE_ROOMS_MAY_IMPORT, f"{module} imports {target}"
    if own_room and ROOMS[own_room] == "kernels":
        assert others <= KERNELS_MAY_IMPORT, f"{module} imports {others - KERNELS_MAY_IMPORT}"
    assert "cupy" not in others or module == "backend", f"{module} imports cupy: backend alone may"


def test_a_wrong_import_would_be_seen():
    TREES["stages.graph"].body.append(ast.parse("def f():\n    from ...pipeline import deconvolve").body[0])
    try:
        assert "pipeline" in imports_of("stages.graph")[0]
        with pytest.raises(AssertionError, match="imports run down only"):
            test_imports_run_down("stages.graph")
    finally:
        TREES["stages.graph"].body.pop()


def test_imports_for_type_checkers_are_left_out():
    text = "if TYPE_CHECKING:\n    from . import pipeline\nelse:\n    from . import errors\nif other:\n    import numpy"
    seen = [alias.name for node in walk_what_runs(ast.parse(text)) for alias in getattr(node, "names", ())]
    assert seen == ["errors", "numpy"]


# -- packing ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="links need a setting on Windows; an install does without")
def test_the_link_is_intact():
    link = PACKAGE / "kernels"
    assert link.is_symlink() and os.readlink(link) == "../kernels", MEND_THE_LINK
    assert (link / "compile.py").exists(), MEND_THE_LINK


def test_every_package_is_listed():
    with open(ROOT / "pyproject.toml", "rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    folders = {name.rpartition(".")[0] if name not in PACKAGES else name for name in SOURCES}
    assert sorted(listed) == sorted(f"stdeconv_fast.{name}".rstrip(".") for name in folders)
    assert folders <= PACKAGES, f"no __init__.py in {folders - PACKAGES}"


def test_the_folder_of_kernels_refuses_its_bare_name():
    message = in_new_process("try:\n    import kernels\nexcept ImportError as error:\n    print(error)")
    assert message == "import stdeconv_fast.kernels, not the repository folder kernels/"


@pytest.mark.slow
def test_the_wheel_holds_one_package(tmp_path):
    """Builds a wheel; the build tools come from the package index, so this is skipped where it cannot be reached."""
    pytest.importorskip("build")
    copy = tmp_path / "copy"
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
    copy.mkdir()
    for folder in ("stdeconv_fast", "kernels"):
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=leave)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    said = done.stdout + done.stderr
    if done.returncode and "No matching distribution found for setuptools" in said:
        pytest.skip("setuptools could not be fetched from the package index")
    assert done.returncode == 0, said
    (wheel,) = tmp_path.glob("*.whl")
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in files} == {"stdeconv_fast"}
    modules = {f"stdeconv_fast/{name.replace('.', '/')}" for name in SOURCES if name not in PACKAGES}
    modules |= {f"stdeconv_fast/{name.replace('.', '/')}".rstrip("/") + "/__init__" for name in PACKAGES}
    sources = {f"stdeconv_fast/kernels/cuda/{path.name}" for path in (KERNELS / "cuda").glob("*.cu*")}
    sources |= {f"stdeconv_fast/pages/{path.name}" for path in (PACKAGE / "pages").iterdir() if path.suffix in PAGE}
    assert files == {f"{name}.py" for name in modules} | {"stdeconv_fast/py.typed"} | sources


# -- files -----------------------------------------------------------------------------------------------------------


def test_no_module_is_named_like_a_public_function():
    functions = {name for name in stdeconv_fast.__all__ if name.islower()} - {"__version__", "io", "pl", "pp", "tl"}
    assert not {*functions, "tune"} & {name.rpartition(".")[2] for name in SOURCES}


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_nothing_prints(module):
    lines = [
        node.lineno
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not lines, f"{SOURCES[module]} prints at lines {lines}: use logging, or click.echo in cli.py"


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_files_are_short_and_introduce_themselves(module):
    text = SOURCES[module].read_text(encoding="utf-8")
    assert text.count("\n") <= 400, f"{SOURCES[module]} has {text.count(chr(10))} lines; split it"
    assert ast.get_docstring(TREES[module]), f"{SOURCES[module]} must begin with a docstring"


@pytest.mark.parametrize("stem", sorted(name.rpartition(".")[2] for name in FLOORS["kernels"] if ".cpu." in name))
def test_every_kernel_file_has_a_naive_twin_and_a_test(stem):
    assert (ROOT / "tests" / "naive" / f"{stem}.py").exists()
    assert (ROOT / "tests" / f"test_kernels_{stem}.py").exists()


# -- the tests' own habits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stdeconv_fast", "stdeconv_fast.stages.graph"])
def test_warnings_of_our_modules_are_errors(name):
    warn = compile("import warnings\nwarnings.warn('from within', RuntimeWarning)", "somewhere.py", "exec")
    with pytest.raises(RuntimeWarning, match="from within"):
        exec(warn, {"__name__": name})


def test_our_warnings_are_errors_wherever_they_point():
    with pytest.raises(stdeconv_fast.DataWarning):
        warnings.warn("data", stdeconv_fast.DataWarning, stacklevel=1)


def test_compiled_kernels_go_to_the_tests_own_folder():
    assert os.environ["NUMBA_CACHE_DIR"] == import_module("numba").config.CACHE_DIR


def test_kernels_do_without_a_cache_where_none_can_be_written(monkeypatch):
    compiling = import_module("stdeconv_fast.kernels.compile")
    njit, asked = compiling.numba.njit, []

    def refuse_cache(**options):
        asked.append(options)
        if options.get("cache"):
            raise RuntimeError(reason)
        return njit(**options)

    def ratio(a, b):
        return a / b

    with monkeypatch.context() as patched:
        patched.setattr(compiling.numba, "njit", refuse_cache)
        reason = "cannot cache function: no locator available"
        compiled = compiling.kernel(boundscheck=True)(ratio)
        reason = "something else"
        with pytest.raises(RuntimeError, match="something else"):
            compiling.kernel(ratio)
    assert compiled(1.0, 0.0) == float("inf")
    assert asked[1] == {"nogil": True, "error_model": "numpy", "boundscheck": True}
