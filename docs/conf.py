"""How the pages are built: ``sphinx-build -W --keep-going -b html docs OUT``. See README.md, Development."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE / "_ext"), str(ROOT)]  # the second one: benchmarks/, whose tables are shown

os.environ.setdefault("STDECONV_QUICK", "1")  # examples: small; a build for release sets 0
os.environ.setdefault("MPLBACKEND", "Agg")

import faces  # noqa: E402
import gallery  # noqa: E402

import stdeconv_fast  # noqa: E402

project = "stdeconv_fast"
author = "the stdeconv_fast authors"
copyright = author
version = release = stdeconv_fast.__version__

extensions = [
    "sphinx.ext.autodoc", "sphinx.ext.autosummary", "formulas", "numpydoc", "myst_parser",
    "sphinx_gallery.gen_gallery", "sphinx_copybutton", "made",
]  # fmt: skip
exclude_patterns = ["_ext", "_templates", "gallery_header.rst", "gallery/*.py", "gallery/*.ipynb"]
templates_path = ["_templates"]
suppress_warnings = ["config.cache"]  # functions in the settings of the gallery: no error, but for the cache

# -- links: what does not resolve is an error ------------------------------------------------------------------------
nitpicky = True
nitpick_ignore_regex = [("py:obj", name) for name in faces.NO_PAGES]
default_role = "py:obj"  # `name` in docstrings
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

# -- API -------------------------------------------------------------------------------------------------------------
autosummary_generate = True
autodoc_typehints = "none"  # docstrings tell kinds, shapes and units
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
# Not asked for: kinds and order of parameters that stand together "as for" another function (PR03, PR04), words
# on what comes back where its kind says it (RT01, RT03), sections See Also and Examples everywhere.
numpydoc_validation_checks = {
    "GL01", "GL03", "GL05", "GL06", "GL07", "GL08", "GL09", "GL10", "SS01", "SS02", "SS03", "SS04", "PR01", "PR02",
    "PR05", "PR06", "PR07", "PR09", "PR10", "RT02", "RT05", "YD01", "SA02", "SA03", "SA04",
}  # fmt: skip
numpydoc_validation_exclude = faces.not_validated()

# -- examples --------------------------------------------------------------------------------------------------------
sphinx_gallery_conf = gallery.settings(ROOT / "examples", HERE)

# -- looks -----------------------------------------------------------------------------------------------------------
html_theme = "furo"
html_title = f"{project} {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_sourcelink = False
html_copy_source = False
html_math_renderer = "mathml"


def setup(app):
    app.connect("config-inited", lambda app, config: faces.write_pages(HERE / "api"))
    app.connect("missing-reference", faces.resolve_short_name)
