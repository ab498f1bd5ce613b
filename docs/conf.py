"""The site of `make docs`: docs/*.md as they are, an API reference from the docstrings; no network is asked."""

import importlib.util
from pathlib import Path

import emix

project, author, release = "emix", "The emix authors", emix.__version__
project_copyright = author
exclude_patterns = ["results/*.yaml"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # [text](ops.md#recurrent)

autodoc_default_options = {"members": True, "undoc-members": True, "imported-members": True, "show-inheritance": False}
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signatures have them, the docstrings shapes
autodoc_preserve_defaults = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"emix {release}"
html_show_sphinx = False
# MathJax comes from a package of PyPI; of its files the site needs this one alone, which asks the network for nothing.
_mathjax = importlib.util.find_spec("sphinx-mathjax-offline")
if _mathjax is None:
    raise ImportError("the site needs sphinx-mathjax-offline: pip install 'emix[docs]'")
html_static_path = [str(Path(str(_mathjax.origin)).parent / "static" / "mathjax" / "tex-svg.js")]
mathjax_path = "tex-svg.js"
