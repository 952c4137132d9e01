"""A page of HTML, taken apart for a test."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "wbr", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements with their attributes, the text of each table row, and all text; refuses what is not well nested."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "dt":
            self.text += " "

    def handle_data(self, data):
        if self._open and self._open[-1] in ("style", "script"):
            return
        self.text += data
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data.strip()

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]
