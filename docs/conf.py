"""The documentation as a site: `make site` builds docs/_build/html with Sphinx. Every page is also readable as it is."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from docutils import nodes
from sphinx.transforms import SphinxTransform

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))  # the checkout's own package, for the reference

import reasonloop  # noqa: E402

project = "ReasonLoop"
release = version = reasonloop.__version__
project_copyright = "the ReasonLoop authors, Apache-2.0"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton", "sphinx_design"]
exclude_patterns = ["_build", "conf.py"]
language = "en"
smartquotes = False  # `--out` is no dash

# The notebook lives with the other examples. It is shown with the outputs that it was committed with, and run by the tests.
shutil.copyfile(ROOT / "examples" / "reasonloop.ipynb", HERE / "notebook.ipynb")
BESIDE = ("own_objective.py", "own_reward.py", "own_method.py")  # what it links to
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "attrs_block", "attrs_inline", "html_image"]
myst_heading_anchors = 4
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types in signatures are shown as they are written, not linked
suppress_warnings = ["myst.header", "toc.not_included"]  # the log's pages are reached from its index

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}

html_theme = "furo"
html_title = "ReasonLoop"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_theme_options = {"light_logo": "logo.svg", "dark_logo": "logo.svg", "sidebar_hide_name": False}
html_show_sourcelink = False
html_copy_source = False
copybutton_exclude = ".linenos, .gp, .go"
linkcheck_anchors = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"

# Links from a page to a file of the repository that is no page: with REPOSITORY_URL, to it there, else its name alone.
REPOSITORY = os.environ.get("REPOSITORY_URL", "").rstrip("/")
PAGES = {"README.md": "index", "CONTRIBUTING.md": "contributing", "examples/reasonloop.ipynb": "notebook"}


class RepositoryLinks(SphinxTransform):
    """Links out of docs/ are links to the repository, to the page that stands for the file, or plain names."""

    default_priority = 5  # before Sphinx makes downloads of them

    def apply(self, **kwargs: Any) -> None:
        page = Path(self.env.doc2path(self.env.docname))
        for reference in [*self.document.findall(self._to_a_file)]:
            target = str(reference.get("reftarget") or reference.get("refuri"))
            path, _, anchor = unquote(target).partition("#")
            found = (page.parent / path).resolve()
            if page == HERE / "notebook.ipynb" and path in BESIDE:
                found = ROOT / "examples" / path
            if found.is_relative_to(HERE) or not found.is_relative_to(ROOT):
                continue
            name = found.relative_to(ROOT).as_posix()
            name += ".ipynb" * (name == "examples/reasonloop")  # whose link has lost its ending by now
            if name in PAGES:
                uri = os.path.relpath(HERE / PAGES[name], page.parent) + ".html" + (f"#{anchor}" if anchor else "")
            elif REPOSITORY:
                uri = f"{REPOSITORY}/{'tree' if found.is_dir() else 'blob'}/main/{name}"
            else:
                reference.replace_self(nodes.inline("", "", *reference.children))
                continue
            link = nodes.reference("", "", *reference.children, refuri=uri)
            reference.replace_self(link)

    @staticmethod
    def _to_a_file(node: nodes.Node) -> bool:
        if not isinstance(node, nodes.Element):
            return False
        target = str(node.get("reftarget") or node.get("refuri") or "")
        return "://" not in target and ("../" in target or target.startswith(str(ROOT)) or target in BESIDE)


def as_rst(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are written for `help()`: `names` in backticks are code, and so is what is indented."""
    written: list[str] = []
    for line in lines:
        before = next((one for one in reversed(written) if one.strip()), "")
        if line.startswith("    ") and not before.startswith("    ") and before != "::":
            written += ["::", ""]
        written.append(line if line.startswith("    ") else re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", line))
    lines[:] = written


def setup(app: Any) -> None:
    app.add_transform(RepositoryLinks)
    app.connect("autodoc-process-docstring", as_rst)
