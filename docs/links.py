"""Hook of MkDocs: the site has the files of the repository that its pages link to.

Pages link to files as a code host shows them, as in `../config.yaml` from docs/index.md. The site
alone would have docs/: the others are added under repository/, and links are turned to them.
"""

import re
from collections.abc import Iterator
from os.path import relpath
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"\[([^][]*)\]\(([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what pages link to, and what that links to."""
    waiting = [Path(str(file.abs_src_path)) for file in files.documentation_pages()]
    known = {Path(str(file.abs_src_path)) for file in files}
    while waiting:
        for target in _targets(waiting.pop()):
            if target not in known:
                known.add(target)
                place = _place(target, config)
                files.append(File.generated(config, place, abs_src_path=str(target)))
                waiting += [target] * (target.suffix == ".md")
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    source = Path(str(page.file.abs_src_path))

    def turned(link: re.Match[str]) -> str:
        target = _target(source, link[2])
        if target is None:  # the web, or what strict mode is to complain of
            return link[0]
        if target.is_dir():  # which a site cannot show
            return link[1]
        place = relpath(_place(target, config), Path(page.file.src_uri).parent)
        return f"[{link[1]}]({place}{link[3] or ''})"

    return LINK.sub(turned, markdown)


def _targets(page: Path) -> Iterator[Path]:
    for link in LINK.finditer(page.read_text()):
        target = _target(page, link[2])
        if target and target.is_file():
            yield target


def _target(page: Path, link: str) -> Path | None:
    """The file or folder that a page links to; of a folder its README where it has one."""
    target = (page.parent / link).resolve()
    if (target / "README.md").is_file():
        target = target / "README.md"
    return target if target.exists() else None


def _place(target: Path, config: MkDocsConfig) -> str:
    """Where the site has a file."""
    docs, root = Path(config.docs_dir), Path(str(config.config_file_path)).parent
    inside = target.is_relative_to(docs)
    return (
        target.relative_to(docs) if inside else "repository" / target.relative_to(root)
    ).as_posix()
