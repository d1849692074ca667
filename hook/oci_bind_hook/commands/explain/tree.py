# SPDX-License-Identifier: Apache-2.0
"""The result of a dry-run as a drawing: the rootfs as a tree of what the plan touches, and the verdict below.

The only input is the document that --format json prints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .drawing import Pen, Span, cells, escaped
from .places import Places

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .places import Document, Entry, Node

_MOST_NAMES = 12  # of the runtime's mounts in one line
_WIDEST_NAMES = 48  # columns: longer names do not move the column of sources, if the output is no terminal
_NARROWEST = 20  # columns: with less space, a mount gets a line of its own
_NARROWEST_SOURCE = 12  # columns: with less space for the source, its properties get a line of their own
_HANGING = 2  # columns of indentation for further lines of a text
_LABELS = {"problem": "bad", "refuses": "bad", "hint": "hint", "warning": "warning", "hides": "link"}
_VERDICTS = {
    **dict.fromkeys(("would fail", "the runtime would refuse it", "not safe"), "bad"),
    **dict.fromkeys(("not known", "nothing would be bound"), "warning"),
}
_NAMESPACES = {"container": "in the container's own namespace", "runtime": "in the runtime's namespace"}


class _Row(NamedTuple):
    """One line of the tree: its ``left`` part and the mount there. Lines below it begin with ``rest``."""

    left: Sequence[Span]
    rest: str
    entry: Entry | None


def as_tree(
    document: Document, *, width: int = 0, is_unicode: bool = True, colour: bool = False, everything: bool = False
) -> str:
    """Returns a document of schemas/plan.json as a drawing.

    ``width`` is that of the terminal, 0 for none. With ``everything``, nothing is folded into one line.
    """
    pen = Pen(width=width, is_unicode=is_unicode, colour=colour)
    return "".join(f"{line}\n" for line in _Picture(document, pen, everything=everything).lines())


class _Picture:
    def __init__(self, document: Document, pen: Pen, *, everything: bool) -> None:
        self._document = document
        self._pen = pen
        self._everything = everything
        self._places = Places(document, pen, everything=everything)

    def lines(self) -> Iterator[str]:
        yield from self._head()
        yield from self._tree([*self._rows()])
        if others := self._others():
            label = f"{self._pen.signs.last}by the runtime:"
            yield from self._text(label, others, style="dim", text_style="dim", hanging=len(self._pen.signs.last))
        if self._places.remarks:
            yield ""
        for remark in self._places.remarks:
            yield from self._remark(remark)
        yield ""
        word, colon, rest = escaped(self._document["verdict"]).partition(":")
        yield from self._text(f"{word}{colon}", rest.strip(), style=_VERDICTS.get(word, "good"))

    def _head(self) -> Iterator[str]:
        """Yields the heading: the rootfs, the container, the stage, and how the hook was registered."""
        about = self._document
        name = self._pen.name(about["rootfs"] or about["bundle"] or "no bundle")
        running = about["running"]
        facts = [
            f"container {about['id']}" if about["id"] else "",
            f"at {about['stage']}" if about["stage"] else "",
            _NAMESPACES.get(about["namespace"], ""),
            f"options from {about['options']}" if about["options"] else "",
            "config.json does not register the hook" if self._is_unregistered() else "",
            f"running as process {running['pid']}" if running and running["pid"] else "",
        ]
        details = escaped(", ".join(filter(None, facts)))
        if not self._pen.width or cells(name) + 2 + cells(details) <= self._pen.width:
            yield self._pen.line([Span(name, "strong"), Span(f"  {details}" if details else "", "dim")])
        else:
            yield self._pen.line([Span(self._pen.shortened(name, self._pen.width), "strong")])
            yield from self._text("", details, text_style="dim")

    def _is_unregistered(self) -> bool:
        """Whether no bind is requested and no runtime calls the hook."""
        about = self._document
        return about["registered"] == [] and not any(mount["by"] != "runtime" for mount in about["mounts"])

    # -- the tree --------------------------------------------------------------------------------------------------

    def _rows(self) -> Iterator[_Row]:
        """Yields all lines of the tree. Not recursive, because the depth of an image is not limited."""
        root, signs = self._places.root, self._pen.signs
        yield from (_Row([], "", entry) for entry in root.entries)
        waiting = self._below(root, "", is_open=bool(self._others()))
        while waiting:
            node, above, is_last = waiting.pop()
            node = node.joined()
            rest = above + (" " * len(signs.rail) if is_last else signs.rail)
            rest = self._pen.shortened(rest, self._pen.width // 2)
            left = [Span(above + (signs.last if is_last else signs.branch), "dim"), *self._label(node)]
            first, *others = node.entries or (None,)
            yield _Row(left, rest, first)
            yield from (_Row([Span(rest, "dim")], rest, entry) for entry in others)
            waiting += self._below(node, rest)

    def _below(self, node: Node, above: str, *, is_open: bool = False) -> list[tuple[Node, str, bool]]:
        """Returns the children of a node, the last first. With ``is_open``, not even the last ends the branch."""
        nodes = [*node.children.values()] if self._everything else node.folded()
        return [(each, above, each is nodes[-1] and not is_open) for each in reversed(nodes)]

    def _label(self, node: Node) -> Iterator[Span]:
        if node.mark:
            yield Span(f"{node.mark} ", "made" if node.mark == "+" else "hint")
        style = node.entries[-1].style if node.entries else ""
        yield Span("/".join(map(self._pen.name, node.names)), "link" if node.to is not None else style)
        if node.to is not None:
            yield Span(f" {self._pen.signs.link} ")
            yield Span(self._pen.name(node.to))
        if node.more:
            yield Span(f" {self._pen.signs.cut} and {node.more} more", "dim")

    def _tree(self, rows: Sequence[_Row]) -> Iterator[str]:
        """Yields the lines of the tree, with sources in one column as far as possible."""
        widest = self._pen.width * 2 // 5 or _WIDEST_NAMES
        widths = [_width(row.left) for row in rows if row.entry is not None]
        column = max((width for width in widths if width <= widest), default=0) + 2
        for row in rows:
            if row.entry is None:
                yield self._pen.line(self._fitted(row.left))
                continue
            yield from self._mount(row, row.entry, column)
            for remark in row.entry.remarks:
                yield from self._remark(remark, indent=row.rest)

    def _mount(self, row: _Row, entry: Entry, column: int) -> Iterator[str]:
        """Yields the line of a mount: its place, source and properties. A narrow terminal gets more than one line."""
        pen = self._pen
        left, used = [*row.left], max(column, _width(row.left) + 2)
        if pen.width and pen.width - used < _NARROWEST:
            if len(left) > 1:
                yield pen.line(self._fitted(left))
            left, used = [Span(row.rest, "dim")], cells(row.rest) + _HANGING
        arrow = f"{pen.signs.source} "
        words = [span for word in entry.words for span in (Span("  " if word.style else " "), word)]
        words[:1] = [Span("  ")] if words else []
        room = pen.width - used - cells(arrow)
        is_tight = bool(pen.width) and room - _width(words) < min(_NARROWEST_SOURCE, cells(entry.source))
        source = pen.shortened(entry.source, room if is_tight else room - _width(words))
        style = "dim" if entry.style == "dim" else ""
        left += [Span(" " * (used - _width(left))), Span(arrow, "dim"), Span(source, style)]
        yield pen.line(left if is_tight else [*left, *words])
        if is_tight and words:
            below = [Span(row.rest, "dim"), Span(" " * _HANGING), *words[1:]]
            if _width(below) <= pen.width:
                yield pen.line(below)
            else:
                text = " ".join(word.text for word in entry.words)
                yield from self._text("", text, indent=row.rest, step=_HANGING)

    def _fitted(self, spans: Sequence[Span]) -> list[Span]:
        """Returns a line, with its longest piece shortened if it does not fit."""
        over = _width(spans) - self._pen.width
        if not self._pen.width or over <= 0:
            return [*spans]
        longest = max(spans, key=lambda span: cells(span.text))
        short = self._pen.shortened(longest.text, cells(longest.text) - over)
        return [span._replace(text=short) if span is longest else span for span in spans]

    def _others(self) -> str:
        """Returns the mounts of the runtime that are not in the tree."""
        shown = [self._few(self._places.own)] if self._places.own else []
        shown += [f"binds on {self._few(self._places.binds)}"] if self._places.binds else []
        return "; ".join(shown)

    def _few(self, paths: Sequence[str]) -> str:
        more = f" and {len(paths) - _MOST_NAMES} more" if len(paths) > _MOST_NAMES else ""
        return ", ".join(map(self._pen.name, paths[:_MOST_NAMES])) + more

    # -- texts -----------------------------------------------------------------------------------------------------

    def _remark(self, remark: tuple[str, str], indent: str = "") -> Iterator[str]:
        label, text = remark
        style = "dim" if label == "note" else ""
        yield from self._text(
            f"{label}:", text, style=_LABELS.get(label.rpartition(" ")[2], "dim"), text_style=style, indent=indent
        )

    def _text(
        self,
        label: str,
        text: str,
        *,
        style: str = "",
        text_style: str = "",
        indent: str = "",
        step: int = 0,
        hanging: int = _HANGING,
    ) -> Iterator[str]:
        """Yields a text after its label, folded. ``indent`` are the rails of each line, ``step`` the columns after it.

        Further lines are ``hanging`` more columns to the right.
        """
        room = self._pen.width - cells(indent) - step - hanging
        lines = self._pen.folded(" ".join(filter(None, (label, text))), room)
        for number, line in enumerate(lines):
            head = label if number == 0 and line.startswith(label) else ""
            before = f"{indent}{' ' * (step + hanging * (number > 0))}"
            yield self._pen.line([Span(before, "dim"), Span(head, style), Span(line[len(head) :], text_style)])


def _width(spans: Iterable[Span]) -> int:
    return sum(cells(span.text) for span in spans)
