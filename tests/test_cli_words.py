"""A wrong word on the command line: one line on standard error, status 2, nothing else."""

import sys

import pytest

from compression.__main__ import main


def run(monkeypatch, capfd, *words):
    monkeypatch.setattr(sys, "argv", ["compression", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    return (caught.value.code, *capfd.readouterr())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "net.safetensors", "--epochs", "many"), "'--epochs'"),
        (("trian",), "No such command 'trian'"),
        (("train", "net.safetensors", "--epoch", "1"), "No such option"),
        (("inspect",), "Missing argument"),
        (("inspect", "one", "two"), "unexpected extra argument"),
        (("inspect", "none\nsuch"), "must be a file that can be read"),
    ],
)
def test_a_wrong_word_is_answered_in_one_line(monkeypatch, capfd, words, said):
    status, output, errors = run(monkeypatch, capfd, *words)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert errors.startswith("Error: ") and said in errors


@pytest.mark.parametrize(("words", "status"), [((), 2), (("--help",), 0), (("scan", "--help"), 0)])
def test_help_is_all_that_is_shown_where_it_is_asked_for(monkeypatch, capfd, words, status):
    ended, output, errors = run(monkeypatch, capfd, *words)
    assert (ended or 0, errors) == (status, "")
    assert "Usage:" in output
