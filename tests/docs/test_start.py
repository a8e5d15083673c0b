"""The five pages of first successes do what they show, and their index lists them."""

from __future__ import annotations

import re

import pytest

from tests.docs.follow import PAGES, ROOT, follow


@pytest.mark.more
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_that_is_followed_in_an_empty_folder_gives_what_it_shows(page, tmp_path):
    assert min(follow(page, tmp_path)) > 0


def test_what_a_page_does_not_show_is_an_error(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n```\n\n```text\n2\n```\n")
    with pytest.raises(AssertionError, match="shows:\n2\n\nand printed:\n1"):
        follow(page, tmp_path)
    page.write_text("```console\npip install nothing\nfalse\n```\n")
    with pytest.raises(AssertionError, match="false"):
        follow(page, tmp_path)


def test_the_index_lists_the_pages_with_their_seconds():
    index = (ROOT / "docs/start/index.md").read_text("utf-8")
    seconds = dict(re.findall(r"^\| \[[^]]+\]\(([\w-]+)\.md\) \|.*\| (\d+) \|$", index, re.MULTILINE))
    assert set(seconds) == {page.stem for page in PAGES} and all(int(value) < 300 for value in seconds.values())
