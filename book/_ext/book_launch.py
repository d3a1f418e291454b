"""Colab and Binder links on chapter pages, from the one address in `_config.yml`.

The book renders executed copies (`book/_generated/NAME.ipynb`), but Colab and Binder must open the committed
source (`notebooks/NAME.ipynb`), so the theme's own launch buttons would point at files that do not exist. As
long as the address is the placeholder, the page says that the book is not published yet and links nowhere.
"""

from __future__ import annotations

from html import escape
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

PLACEHOLDER_OWNER = "OWNER"


def is_published(repository_url: str) -> bool:
    """True when `repository_url` names a real GitHub repository, not the placeholder.

    >>> is_published("https://github.com/OWNER/rlheals"), is_published("https://github.com/ada/rlheals")
    (False, True)
    """
    parts = urlsplit(repository_url)
    path = [part for part in parts.path.split("/") if part]
    return parts.netloc == "github.com" and len(path) == 2 and path[0] != PLACEHOLDER_OWNER


def launch_row(repository_url: str, branch: str, name: str) -> str:
    """HTML of the row under a chapter's title: links to its source notebook, or why there are none.

    >>> "not published yet" in launch_row("https://github.com/OWNER/rlheals", "main", "01_x")
    True
    >>> "colab.research.google.com/github/ada/rlheals/blob/main/notebooks/01_x.ipynb" in launch_row(
    ...     "https://github.com/ada/rlheals", "main", "01_x")
    True
    """
    if not is_published(repository_url):
        return '<p class="launch-row">Colab and Binder: not published yet.</p>'
    owner_repo = urlsplit(repository_url).path.strip("/")
    notebook = quote(f"notebooks/{name}.ipynb")
    lab_path = quote(notebook, safe="")
    links = {
        "Open in Colab": f"https://colab.research.google.com/github/{owner_repo}/blob/{branch}/{notebook}",
        "Open in Binder": f"https://mybinder.org/v2/gh/{owner_repo}/{branch}?labpath={lab_path}",
        "Source on GitHub": f"https://github.com/{owner_repo}/blob/{branch}/{notebook}",
    }
    anchors = (f'<a class="launch" href="{escape(url)}">{text}</a>' for text, url in links.items())
    return f'<p class="launch-row">{" ".join(anchors)}</p>'


def _add_row(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Put the row below the first heading of a page that was rendered from an executed notebook."""
    page = PurePosixPath(pagename)
    if doctree is None or page.parent.name != "_generated":
        return
    theme = app.config.html_theme_options
    row = launch_row(theme.get("repository_url", ""), theme.get("repository_branch", "main"), page.name)
    context["body"] = context["body"].replace("</h1>", "</h1>\n" + row, 1)


def _drop_live_code(
    app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Remove the addresses of the live-code (thebe) script, which the book does not use."""
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in f"{getattr(script, 'filename', script)} {getattr(script, 'attributes', '')}".lower()
    ]


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this once."""
    app.connect("html-page-context", _add_row)
    app.connect("html-page-context", _drop_live_code, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
