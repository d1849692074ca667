# SPDX-License-Identifier: Apache-2.0
"""What a plan touches in the rootfs, as a tree of names: links, mounts, what will be created, and remarks on each.

The input is the document that --format json prints. All texts are escaped, and names are in quotes where they could be
mistaken for part of the drawing.
"""

from __future__ import annotations

import os
import re
from bisect import bisect
from typing import TYPE_CHECKING, NamedTuple

from ...mounting.config_mounts import lexical
from ...record.state_file import source_of
from ...requests.request import DEFAULT_PROPAGATION
from ..upkeep.replaced import WORDS
from .drawing import Span, escaped
from .verdict import sentence, who

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence
    from typing import Any

    from .drawing import Pen

    Document = Mapping[str, Any]
    Remark = tuple[str, str]  # a label and its text

_FOLDED = 4  # this many similar entries of one folder become one line
_PROBLEM, _REFUSES = "problem", "refuses"


class Entry(NamedTuple):
    """One mount at its place: ``words`` follow the source, ``remarks`` are below.

    Entries with the same ``kind``, unless it is None, may be folded. ``pattern`` is then their source.
    """

    source: str
    words: Sequence[Span]
    style: str
    remarks: Sequence[Remark] = ()
    pattern: str = ""
    kind: Hashable = None


class Node:
    """A name in the rootfs, or several names of a path without other branches.

    ``mark`` is "+" for a mount point to create and "-" for one to remove, ``to`` the text of a link, ``more`` how many
    other nodes are folded into it.
    """

    def __init__(self, name: str) -> None:
        self.names = [name]
        self.mark = ""
        self.to: str | None = None
        self.kind: Hashable = None
        self.entries: list[Entry] = []
        self.children: dict[str, Node] = {}
        self.more = 0

    def at(self, path: str) -> Node:
        """Returns the node at a path below this one. Creates missing nodes."""
        node = self
        for name in filter(None, path.split("/")):
            node = node.children.setdefault(name, Node(name))
        return node

    def has(self, path: str) -> bool:
        """Whether a node exists at a path below this one."""
        node = self
        for name in filter(None, path.split("/")):
            if name not in node.children:
                return False
            node = node.children[name]
        return True

    def joined(self) -> Node:
        """Joins a node without entries with its only child, and so on. Returns the last node, with all names."""
        node, names = self, [*self.names]
        while not node.entries and node.to is None and len(node.children) == 1:
            (child,) = node.children.values()
            if child.mark != node.mark:
                break
            node = child
            names += node.names
        node.names = names
        return node

    def folded(self) -> list[Node]:
        """Returns the children. Of many similar ones only the first is returned, with the number of the others."""
        alike: dict[Hashable, list[Node]] = {}
        for node in self.children.values():
            alike.setdefault(node.sort, []).append(node)
        kept = []
        for node in self.children.values():
            first, *others = alike[node.sort]
            if len(others) + 1 < _FOLDED:
                kept.append(node)
            elif node is first:
                node.more = len(others)
                node.entries = [entry._replace(source=entry.pattern) for entry in node.entries]
                kept.append(node)
        return kept

    @property
    def sort(self) -> Hashable:
        """The key that is the same for all nodes that may be folded together."""
        return self if self.kind is None or self.children else (self.kind, self.mark)


class Places:
    """Everything that a document of schemas/plan.json touches, below ``root``.

    ``own`` and ``binds`` are paths of the runtime's mounts that are not in the tree, ``remarks`` those that concern no
    mount. With ``everything``, all mounts are in the tree.
    """

    def __init__(self, document: Document, pen: Pen, *, everything: bool) -> None:
        self.root = Node("/")
        self.own: list[str] = []
        self.binds: list[str] = []
        self.remarks: list[Remark] = []
        self._pen = pen
        self._everything = everything
        self._has_labels = bool(document["selinux"] and document["selinux"]["process"])
        said = self._problems(document)
        left = []
        for number, mount in enumerate(document["mounts"]):
            remarks = [*said.get(number, ()), *_remarks(mount)]
            if mount["by"] == "runtime" and not remarks:
                left.append(mount)
            else:
                self._take(mount, remarks)
        for path in document.get("remove", ()):
            self.root.at(path).mark = "-"
        for own in document["own"]:
            source = own["type"] if own["source"] in (None, own["type"]) else f"{own['source']} ({own['type']})"
            self._take_left(own["resolved"] or lexical(own["destination"]), escaped(source), self.own)
        for mount in left:
            self._take_left(_place(mount), self._source(mount), self.binds)
        self.remarks += [("warning", escaped(text)) for text in document["warnings"]]
        self.remarks += [("note", escaped(text)) for text in document["notes"]]

    def _problems(self, document: Document) -> dict[int, list[Remark]]:
        """Returns the problems of each mount by its number. Problems without a mount are added to ``remarks``."""
        by_place: dict[str, _Mounts] = {}
        for number, mount in enumerate(document["mounts"]):
            by_place.setdefault(mount["origin"].replace("config.json#", "config.json: "), _Mounts()).add(number, mount)
        said: dict[int, list[Remark]] = {}
        found = [(_PROBLEM, problem) for problem in document["problems"]]
        found += [(f"{who(refused['by'])} {_REFUSES}", refused) for refused in document.get("runtime") or ()]
        for label, problem in found:
            about = problem["where"]
            while about and about not in by_place:
                about = about.rpartition("/")[0]
            concerned = by_place[about].named(problem["message"]) if about else None
            remarks = self.remarks if concerned is None else said.setdefault(concerned, [])
            is_first = problem is found[0][1] and sentence(problem) in document["verdict"]
            if is_first and concerned is None and not problem["hint"]:
                continue  # the verdict below says it
            remarks.append((label, escaped(sentence(problem))))
            if problem["hint"]:
                remarks.append(("hint", escaped(problem["hint"])))
        return said

    def _take(self, mount: Document, remarks: list[Remark]) -> None:
        pattern = mount.get("pattern")
        for link in mount["links"]:
            node = self.root.at(link["at"])
            node.to, node.kind = link["to"], ("link", mount["origin"], pattern) if pattern else None
        for made in mount["create"]:
            self.root.at(made["path"]).mark = "+"
        words = [*self._words(mount)]
        kind = (mount["origin"], pattern, *words) if pattern and not remarks else None
        style = "bad" if any(label == _PROBLEM or label.endswith(_REFUSES) for label, _ in remarks) else _style(mount)
        node = self.root.at(_place(mount))
        node.kind = kind if not node.entries and node.to is None else None
        shown = self._pen.name(pattern) if pattern else ""
        node.entries.append(Entry(self._source(mount), words, style, remarks, shown, kind))

    def _take_left(self, path: str, source: str, others: list[str]) -> None:
        """Adds a mount of the runtime to its node if the tree has one, otherwise to ``others``."""
        if path == "/" or not (self._everything or self.root.has(path)):
            others.append(path)
            return
        node = self.root.at(path)
        node.kind = None
        # The runtime mounts before the hook.
        node.entries.insert(0, Entry(source, [Span("by the runtime", "dim")], "dim"))

    def _source(self, mount: Document) -> str:
        source, found = source_of(mount), mount["found"]
        if found is None or found["path"] == source:
            return self._pen.name(source)
        return f"{self._pen.name(source)} {self._pen.signs.link} {self._pen.name(found['path'])}"

    def _words(self, mount: Document) -> Iterator[Span]:
        """Yields the properties of a mount that differ from the default."""
        action, asked = mount["action"], mount["asked"]
        for word in mount["attributes"]:
            if word != "relatime":
                yield Span(f"r{word}" if f"r{word}" in asked else word)
        if mount["idmap"]:
            yield Span("ridmap" if "ridmap" in asked else "idmap")
        if mount["propagation"] != DEFAULT_PROPAGATION:
            yield Span(mount["propagation"])
        if "when_exists" in mount and action != "skipped":
            yield Span(f"only if {self._pen.name(mount['when_exists'])} exists")
        if action == "unmount":
            yield Span("will be unmounted")
        elif action == "gone":
            yield Span("already gone", "dim")
        elif mount["by"] == "runtime":
            yield Span("by the runtime", "dim")
        elif action == "present":
            yield Span("already mounted", "dim")
        elif mount["now"] is not None:
            there = "mounted now" if mount["now"] else "not mounted now"
            text = ", ".join(filter(None, (there, WORDS.get(mount["source_now"]))))
            yield Span(text, "dim" if text == "mounted now" else "warning")
        for hidden in mount["hides"]:
            if hidden["what"] != "mount":
                yield Span(f"over the image's {hidden['what']}", "dim")
        if self._has_labels and mount["found"] and mount["found"]["label"]:
            yield Span(escaped(_type(mount["found"]["label"])), "dim")
        if mount["by"] == "hook" and not mount["origin"].startswith("--mount "):
            yield Span(escaped(mount["origin"]), "dim")


def _remarks(mount: Document) -> Iterator[Remark]:
    """Yields the remarks on a mount."""
    for hidden in mount["hides"]:
        if hidden["what"] == "mount":
            yield "hides", escaped(f"{hidden['origin']} on {hidden['path']}")
    if mount["action"] == "skipped":
        yield "skipped", escaped(", ".join(mount["warnings"]))
    else:
        yield from (("warning", escaped(warning)) for warning in mount["warnings"])


class _Mounts:
    """The mounts of one origin. If they are matches of a pattern, a problem concerns the one whose path it has."""

    def __init__(self) -> None:
        self._last = 0
        self._numbers: dict[str, int] = {}
        self._paths: list[str] = []

    def add(self, number: int, mount: Document) -> None:
        """Adds a mount with its ``number`` in the document."""
        self._last = number
        for path in (source_of(mount), str(mount["resolved"] or mount["destination"])):
            self._numbers[path] = number

    def named(self, message: str) -> int:
        """Returns the number of the mount with the longest path in a message, or of the last mount."""
        if len(self._paths) != len(self._numbers):
            self._paths = sorted(self._numbers)
        starts = [0, *(match.end() for match in re.finditer(r"[^\w/.-](?=/)", message))]
        found = [self._longest(message[start:]) for start in starts]
        return self._numbers.get(max(found, key=len), self._last)

    def _longest(self, text: str) -> str:
        """Returns the longest path that a text begins with, "" for none."""
        while text:
            at = bisect(self._paths, text)
            before = self._paths[at - 1] if at else ""
            if text.startswith(before):
                return before
            # All paths between the two in sort order differ from the text where this one does.
            text = os.path.commonprefix([before, text])  # noqa: RUF071 - by characters, as they are sorted
        return ""


def _place(mount: Document) -> str:
    return str(mount["resolved"] or lexical(mount["destination"]))


def _type(label: str) -> str:
    """Returns the type in an SELinux label, USER:ROLE:TYPE:LEVEL. Most rules of a policy use it."""
    return [*label.split(":", 3), "", ""][2] or label


def _style(mount: Document) -> str:
    if mount["action"] in ("skipped", "gone") or mount["by"] == "runtime":
        return "dim"
    return "strong" if mount["action"] == "present" else "bind"
