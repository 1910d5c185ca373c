"""The directive ``made NAME``: text that is made when the pages are built, from the code and from measurements."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import commands
import measured
import settings_table
import shortcuts
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
# A maker gives the text (MyST) and the files that it hangs on.
MAKERS: dict[str, Callable[[], tuple[str, list[Path]]]] = {
    **settings_table.MAKERS, **shortcuts.MAKERS, **commands.MAKERS, **measured.MAKERS,
}  # fmt: skip


class Made(SphinxDirective):
    """``{made} NAME``: what the maker of that name gives, read as if it stood here."""

    required_arguments = 1

    def run(self):
        name = self.arguments[0]
        if name not in MAKERS:
            raise self.error(f"nothing is made under the name {name!r}; there are {', '.join(sorted(MAKERS))}")
        text, files = MAKERS[name]()
        for path in files:
            self.env.note_dependency(str(path))
        made = self.parse_text_to_nodes(text, allow_section_headings=True)
        if not name.startswith("measured") or name == "measured_versions":
            return made
        return [nodes.container("", *made, classes=["measured"])]  # cells of numbers are not broken


def setup(app: Sphinx) -> dict:
    app.add_directive("made", Made)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
