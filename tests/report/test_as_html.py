"""HTML: well-formed, complete, and nothing in a name becomes markup."""

from html.parser import HTMLParser

from costmodel.report import render
from costmodel.report.document import Code, Document, Figure, KeyValues, Notes, Paragraph
from costmodel.report.summary import analysis_document

VOID = {"meta", "br", "img"}


class Reader(HTMLParser):
    """Text and tags of a page; fails where an end tag closes another element than the open one."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_a_real_page_is_well_formed_and_has_every_row(fake):
    analysis = fake.realistic()
    page = Reader(render(analysis_document(analysis), "html"))
    assert page.open == []
    assert page.tags.count("tr") == 1 + len(analysis.operators) + 1  # heading, operators, total


def test_names_stay_text():
    evil = "<script>alert(1)</script> & \"x\" 'y'"
    blocks = (
        Paragraph(evil),
        KeyValues(((evil, evil),)),
        Notes((evil,), evil),
        Code(evil, evil),
        Figure(evil, evil, evil),
    )
    page = Reader(render(Document(evil, blocks), "html"))
    assert "script" not in page.tags and page.open == []
    assert page.text.count(evil) == 8  # page title, heading, paragraph, key, value, note title, note, caption
    assert f"{evil} {evil}" in page.text


def test_the_page_fetches_nothing(fake):
    text = render(analysis_document(fake.realistic()), "html")
    assert "http" not in text and "<script" not in text and "@import" not in text
