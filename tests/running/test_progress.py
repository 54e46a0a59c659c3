import io
import sys

import pytest

from ctspine1k.running.progress import is_terminal, progress_bar


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stderr", "total", "is_shown"),
    [(Screen(), 2, True), (Screen(), 0, False), (io.StringIO(), 2, False), (None, 2, False)],
    ids=["on a terminal", "of nothing", "in a file", "without stderr"],
)
def test_a_bar_is_shown_on_a_terminal_when_there_is_work(monkeypatch, stderr, total, is_shown):
    monkeypatch.setattr(sys, "stderr", stderr)
    with progress_bar("Working", total, "case") as bar:
        for _ in range(total):
            bar.update()
    shown = stderr.getvalue() if stderr else ""
    assert ("Working: 100%" in shown, "2/2" in shown, "case/s" in shown) == (is_shown,) * 3
    assert is_terminal() is isinstance(stderr, Screen)


def test_it_counts_by_more_than_one(monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    with progress_bar("Working", 6, "case") as bar:
        bar.update(2)
        bar.update(4)
    assert "6/6" in screen.getvalue()
