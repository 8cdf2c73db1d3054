"""What the documents say of the program and of each other: options, modules, links."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.command import command_line

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
OPTION = re.compile(r"(?<![\w-])(-[a-zA-Z]|--[a-z][a-z-]+)\b")
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def options_of_the_help() -> set[str]:
    shown = subprocess.run(
        command_line("--help"), check=True, capture_output=True, text=True, cwd="/"
    ).stdout
    listed = shown.partition("\noptions:\n")[2].partition("\n\n")[0]
    heads = re.findall(r"^  (-.*?)(?:  |$)", listed, re.MULTILINE)
    return {option for head in heads for option in OPTION.findall(head)}


def options_of_the_readme() -> set[str]:
    section = text_of("README.md").partition("\n## Options\n")[2].partition("\n## ")[0]
    heads = re.findall(r"^\| (`-.*?) \|", section, re.MULTILINE)
    return {option for head in heads for option in OPTION.findall(head)}


def test_the_readme_has_the_options_of_the_help() -> None:
    assert options_of_the_readme() == options_of_the_help() >= {"-n", "--dry-run", "--json"}


def test_the_modules_that_the_architecture_names_exist() -> None:
    sources = ROOT / "src" / "buttersink"
    text = text_of("docs/ARCHITECTURE.md")
    files = set(re.findall(r"`([a-z0-9_/]+\.py)`", text))
    table = text.partition("\n| modules |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    modules = {name for cell in cells for name in re.findall(r"`([a-z.]+)`", cell)}
    assert len(files) > 10
    assert len(modules) > 10
    missing = [name for name in files if not any((top / name).is_file() for top in (sources, ROOT))]
    for name in modules:
        place = sources.joinpath(*name.split("."))
        if not place.is_dir() and not place.with_suffix(".py").is_file():
            missing.append(name)
    assert missing == []


def test_the_architecture_is_one_page() -> None:
    assert len(text_of("docs/ARCHITECTURE.md").splitlines()) <= 150


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    links = LINK.findall(CODE_BLOCK.sub("", document.read_text("utf-8")))
    broken = [link for link in links if "://" not in link and not resolves(document, link)]
    assert broken == []


def resolves(document: Path, link: str) -> bool:
    name, _hash, anchor = link.partition("#")
    target = document.parent / name if name else document
    if not target.exists():
        return False
    return not anchor or anchor in anchors(target)


def anchors(document: Path) -> set[str]:
    """Return what the headings of a document are linked by."""
    text = CODE_BLOCK.sub("", document.read_text("utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
