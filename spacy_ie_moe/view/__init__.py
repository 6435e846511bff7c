"""Relations drawn as labelled arcs over the text: HTML with inline SVG, no script, nothing to load."""

from .html import render

__all__ = ["render"]
