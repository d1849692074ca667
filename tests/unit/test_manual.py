# SPDX-License-Identifier: Apache-2.0
"""The man pages say what the program knows; what the tables have to say in them, a test of generate.py holds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import generate
import manual
from oci_bind_hook import __version__
from oci_bind_hook.commands.dispatch import COMMANDS
from oci_bind_hook.documents import acceptor
from oci_bind_hook.options import STAGES

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "hook/man/oci-bind-hook.8.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    [found] = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return str(found)


def column(text: str) -> list[str]:
    """The first cells of the rows of tables, without quotes."""
    rows = re.findall(r"^\| (.*?) (?<!\\)\|", text, re.MULTILINE)
    return [row.replace("`", "").replace("\\|", "|") for row in rows if row not in ("option", "stage", "field")]


def test_the_stages_are_those_that_are_known() -> None:
    assert column(section("STAGES")) == list(STAGES)


def test_every_command_is_told() -> None:
    assert [command.name for command in COMMANDS if f"**{command.name}" not in PAGE] == []


def test_what_troubles_are_known_by_is_what_is_said() -> None:
    quoted = re.findall(r'"(.+?)"', re.sub("`[^`]+`", "", section("TROUBLESHOOTING")))
    others = {"error executing hook", "(exit code: N)", "No such file or directory", "Read-only file system"}
    sources = "".join(file.read_text(encoding="utf-8") for file in (PROJECT / "hook/oci_bind_hook").rglob("*.py"))
    said = re.sub(r'"\s*f?"', "", sources)
    words = {word.strip() for text in quoted for word in re.split(r"\.\.\.|: (?=No such)", text)} - others
    assert len(words) > 8
    assert [word for word in words if word not in re.sub(r"\{[^{}]*\}", "", said) and word not in said] == []


def test_each_member_of_the_state_file_is_told_with_its_description() -> None:
    page = manual.pages()["oci-bind-hook-state-file.5"]
    rows = dict(generate.members("state-file"))
    assert {"`version`", "`bundle.ino`", "`mounts[].attached[].unique`", "`made[].identity.born`"} < set(rows)
    assert rows["`id`"].startswith("(string) 1 to 200 of the characters A-Z a-z 0-9")
    descriptions = re.findall(r'"description": ("[^"]*")', json.dumps(acceptor.schema("state-file")))
    assert len(descriptions) > 15
    assert [text for text in descriptions if not any(json.loads(text) in told for told in rows.values())] == []
    assert [name for name in rows if manual.escaped(name.strip("`")) not in page] == []


MARKDOWN = {
    "# name(5)": f'.TH NAME 5 2026-01-02 "oci-bind-hook {__version__}" "OCI hooks"\n.nh\n.ad l',
    "## A TITLE": ".SH A TITLE",
    "### A part": ".SS A part",
    ".dot\nand 'more'": ".PP\n\\&.dot and 'more'",
    "a-b \\ **bold-c**, *it* and `--x`": ".PP\na\\-b \\e \\fBbold\\-c\\fR, \\fIit\\fR and \\fB\\-\\-x\\fR",
    "    .a\n      'b": ".PP\n.RS 4\n.EX\n\\&.a\n  'b\n.EE\n.RE",
    "## A\n\ntext\n\nmore": ".SH A\ntext\n.PP\nmore",
    "## A\n\n    text": ".SH A\n.RS 4\n.EX\ntext\n.EE\n.RE",
    f"{'word ' * 16}...": f".PP\n{'word ' * 15}word\n\\&...",
    "- one\n  more\n- two": ".IP \\(bu 2\none more\n.IP \\(bu 2\ntwo",
    "1. one\n   more\n2. two": ".IP 1. 3\none more\n.IP 2. 3\ntwo",
    "<!-- generated: fields -->\n\ntext\n\n<!-- end -->": ".PP\ntext",
    "| a | b |\n|---|---|\n| `x\\|y` | z |": ".TP\n\\fBx|y\\fR\nz",
}


@pytest.mark.parametrize("markdown", MARKDOWN)
def test_markdown_becomes_roff(markdown: str) -> None:
    assert manual.roff(markdown, "2026-01-02").split("\n", 1)[1] == MARKDOWN[markdown] + "\n"


@pytest.mark.parametrize("markdown", ["```\nx\n```", "<b>x</b>", "| a | b | c |\n|---|---|---|\n| 1 | 2 | 3 |"])
def test_other_markdown_is_refused(markdown: str) -> None:
    with pytest.raises(ValueError, match=r"known here|two columns"):
        manual.roff(markdown, "2026-01-02")


DOCUMENTS = sorted(
    str(path.relative_to(PROJECT))
    for pattern in ("*.md", "docs/*.md", "examples/*.md", "schemas/*.md", "hook/man/*.md")
    for path in PROJECT.glob(pattern)
)


def anchor(heading: str) -> str:
    """What a heading is linked by, as GitHub and GitLab make it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_of_the_documents_leads_to_something(document: str) -> None:
    text = (PROJECT / document).read_text(encoding="utf-8")
    for target, _, place in re.findall(r"\]\(([^)#: ]*)(#([^)]*))?\)", text):
        path = (PROJECT / document).parent / target if target else PROJECT / document
        assert path.exists(), f"{document}: {target}"
        if place:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert place in map(anchor, headings), f"{document}: {target}#{place}"


def test_each_document_begins_with_its_title() -> None:
    without = [
        document for document in DOCUMENTS if not (PROJECT / document).read_text(encoding="utf-8").startswith("# ")
    ]
    assert without == []


def test_the_readme_is_short() -> None:
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").split()) <= 1300


def test_the_examples_image_has_the_version_of_the_program() -> None:
    tag = f"oci-bind-hook-wheels:{__version__}"
    for example in ("Containerfile", "daemonset.yaml"):
        text = (PROJECT / "examples/kubernetes" / example).read_text(encoding="utf-8")
        assert text.count("oci-bind-hook-wheels:") == text.count(tag) > 0


def test_the_footer_has_the_day_of_the_version_and_each_build_the_same() -> None:
    changes = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{__version__}] - {manual.date()}\n" in changes
    assert manual.pages() == manual.pages()
    footers = [re.findall(r"^\.TH \S+ (\d) (\S+) \"(.*?)\"", page, re.MULTILINE) for page in manual.pages().values()]
    assert footers == [[(section, manual.date(), f"oci-bind-hook {__version__}")] for section in "58"]


def test_a_version_without_a_day_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "CHANGELOG.md").write_text(f"## [{__version__}] - unreleased\n\n## [0.0.1] - 2020-01-01\n")
    monkeypatch.setattr(manual, "CHANGELOG", str(tmp_path / "CHANGELOG.md"))
    with pytest.raises(ValueError, match=f"no day for {__version__}"):
        manual.date()


def test_the_sections_that_people_look_for_are_there() -> None:
    titles = re.findall("^## (.*)", PAGE, re.MULTILINE)
    assert titles[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"]
    assert {"OPTIONS", "EXIT STATUS", "NOTES", "ENVIRONMENT", "FILES", "EXAMPLES"} <= {*titles}
    assert titles[-1] == "SEE ALSO"
