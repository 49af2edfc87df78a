import pytest

from pear_cli.system import streams


@pytest.mark.parametrize("width", [20, 80])
def test_a_long_message_breaks_between_words_alone(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    path = "~/.cache/pear/data/a-name-that-is-longer-than-a-line;"
    text = f"put the files into {path} or well-known places"
    lines = streams.at_words(f"{text}\nsecond").splitlines()
    assert " ".join(lines[:-1]) == text
    assert lines[-1] == "second"
    assert all(len(line) <= width or line == path for line in lines)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", "\t=1"])
def test_a_spreadsheet_computes_no_text(text):
    assert streams.formula_free(text) == f"'{text}"
    assert streams.formula_free(f"a{text}") == f"a{text}"
