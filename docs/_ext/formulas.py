"""Formulas as MathML, which browsers draw by themselves: pages need no script and no network."""

from __future__ import annotations

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util.math import get_node_equation_number


def draw_inline(writer, node):
    """A formula within a line."""
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def draw_block(writer, node):
    """A formula of its own, with its number where it has one."""
    number = f"<span>({get_node_equation_number(writer, node)})</span>" if node["number"] else ""
    writer.body.append(writer.starttag(node, "div", CLASS="math notranslate"))
    writer.body.append(f"{convert(node.astext(), display='block')}{number}</div>")
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (draw_inline, None), (draw_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
