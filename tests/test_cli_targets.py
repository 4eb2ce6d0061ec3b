"""Where commands may write: the places that are asked for, with `~` as the home folder."""

from pathlib import Path

from compression.cli import common


def test_a_home_that_the_shell_left_alone_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert common.checkpoint_target(Path("~/a/net.safetensors")) == tmp_path / "a/net.safetensors"
    assert common.packed_target(Path("~/p.safetensors")) == tmp_path / "p.safetensors"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    kept = tmp_path / "s.json"
    assert common.settings_target(None) is None
    for _ in range(2):  # without the file, and with it
        assert common.settings_target(Path("~/s.json")) == kept
        kept.write_text("{}")
