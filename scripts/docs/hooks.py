"""Hooks of mkdocs: pages made of what stands elsewhere, and how-to pages that the nav does not name."""

import re
from pathlib import Path
from typing import Any

import commands
import settings
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

RESULTS = ("Results", "What a result counts")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the nav: how-to pages by their names, and the settings, a page a group."""
    howto: list[Any] = section(config.nav, "How to")
    named = {f"howto/{path.name}" for path in Path(config.docs_dir, "howto").glob("*.md")}
    howto += sorted(named.difference(howto))
    section(section(config.nav, "Reference"), "Settings").extend(settings.pages())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    readme = (Path(config.config_file_path).parent / "README.md").read_text("utf-8")
    pages = {
        "results.md": results(readme),
        "reference/commands.md": commands.page(),
        **settings.pages(),
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def results(readme: str) -> str:
    """The measured sections of the README as a page; links out of docs/ become plain text."""
    parts = [re.search(rf"^## {title}\n.*?(?=^## )", readme, re.M | re.S) for title in RESULTS]
    text = "".join(part[0] for part in parts if part is not None)
    return re.sub(r"\[([^\]]*)\]\((?!https?://)[^)]*\)", r"\1", text.replace("## ", "# ", 1))


def section(nav: Any, title: str) -> Any:
    """The list below a title of the nav."""
    return next(item[title] for item in nav if isinstance(item, dict) and title in item)
