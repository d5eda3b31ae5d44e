import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lth_cli.store import files, lines
from lth_cli.store.files import Damaged, ReadFailed, WriteFailed


def fail(number):
    def failing(*_args, **_keywords):
        raise OSError(number, os.strerror(number))

    return failing


def test_write_replaces_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    files.write_text(path, "new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("call", ["write", "fsync", "open"])
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "input/output error"),
    ],
)
def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch, call, number, words):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail(number))
        with pytest.raises(WriteFailed, match=words) as caught:
            files.write_text(path, "new")
    assert str(path) in str(caught.value)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_partial_write_is_completed(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    files.write_text(tmp_path / "a", "0123456789")
    assert (tmp_path / "a").read_text() == "0123456789"


def test_vanished_folder(tmp_path):
    with pytest.raises(WriteFailed, match="the folder is gone"):
        files.write_text(tmp_path / "gone" / "a", "x")


def test_interrupt_while_writing_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(tmp_path / "a", "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs to mount a tmpfs")
def test_full_disk(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], check=False).returncode:
        pytest.skip("cannot mount")
    try:
        lines.append_lines(tmp_path / "m.jsonl", [{"step": 1}])
        files.write_bytes(tmp_path / "a", b"a" * 40_000)
        with pytest.raises(WriteFailed, match="disk full"):
            files.write_bytes(tmp_path / "a", b"b" * 40_000)
        assert files.read_bytes(tmp_path / "a") == b"a" * 40_000
        with pytest.raises(WriteFailed, match="disk full"):
            lines.append_lines(tmp_path / "m.jsonl", [{"step": 2, "text": "x" * 60_000}])
        assert (tmp_path / "m.jsonl").read_bytes() == b'{"step":1}\n'
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "m.jsonl"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


WRITER = """
import sys
from pathlib import Path
from lth_cli.store import files, lines
folder = Path(sys.argv[1])
i = 0
while True:
    files.write_bytes(folder / "a", bytes([i % 256]) * 200_000)
    lines.append_lines(folder / "m.jsonl", [{"step": i, "text": "x" * 5000}])
    i += 1
"""


def test_kill_at_any_instant_leaves_whole_files(tmp_path):
    last = -1
    for wait in (0.0, 0.003, 0.011, 0.03):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], cwd=Path(__file__).parents[2]
        )
        deadline = time.monotonic() + 30
        target = tmp_path / "a"
        before = target.stat().st_mtime_ns if target.exists() else 0
        while time.monotonic() < deadline and (not target.exists() or target.stat().st_mtime_ns == before):
            time.sleep(0.002)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        content = target.read_bytes()
        assert len(content) == 200_000
        assert len(set(content)) == 1
        read = lines.read_lines(tmp_path / "m.jsonl")
        assert all(len(line["text"]) == 5000 for line in read)
        assert len(read) > last
        last = len(read) - 1
    files.remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "m.jsonl"]


@pytest.mark.parametrize("content", [b"{", b"", b"\xff", b"[" * 100_000, b'{"a": NaN}', b"9" * 5000])
def test_malformed_json(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(Damaged, match=r"a\.json is damaged: not JSON"):
        files.read_json(path)


def test_oversize_and_missing_json(tmp_path):
    (tmp_path / "a.json").write_text("[" + "1," * 1000 + "1]")
    with pytest.raises(Damaged, match="larger than"):
        files.read_json(tmp_path / "a.json", limit=100)
    with pytest.raises(ReadFailed, match="no such file"):
        files.read_json(tmp_path / "b.json")


def test_bad_block_is_damage_and_a_lost_network_is_not(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("{}")
    monkeypatch.setattr(Path, "open", fail(errno.EIO))
    with pytest.raises(Damaged):
        files.read_json(tmp_path / "a")
    monkeypatch.setattr(Path, "open", fail(errno.ESTALE))
    with pytest.raises(ReadFailed):
        files.read_json(tmp_path / "a")


def test_canonical_is_one_text():
    assert files.canonical({"b": 1, "a": [1.5, "é", None]}) == '{"a":[1.5,"\\u00e9",null],"b":1}'
    assert files.digest({2: 0, 10: 1}) == files.digest({"10": 1, "2": 0})
    with pytest.raises(ValueError, match="JSON"):
        files.canonical({"a": float("nan")})


def test_sealed_json_finds_a_changed_value(tmp_path):
    path = tmp_path / "a.json"
    files.write_sealed(path, {"density": 0.5, "n": {1: 2}})
    assert files.read_sealed(path) == {"density": 0.5, "n": {"1": 2}}
    path.write_text(path.read_text().replace("0.5", "0.6"))
    with pytest.raises(Damaged, match="checksum"):
        files.read_sealed(path)


def test_torn_last_line_is_ignored_and_cut_by_the_next_append(tmp_path):
    path = tmp_path / "m.jsonl"
    lines.append_lines(path, [{"step": 1}, {"step": 2}])
    with path.open("ab") as file:
        file.write(b'{"step": 3, "lo')
    assert lines.has_torn_line(path)
    assert [line["step"] for line in lines.read_lines(path)] == [1, 2]
    lines.append_lines(path, [{"step": 3}])
    assert [line["step"] for line in lines.read_lines(path)] == [1, 2, 3]
    assert not lines.has_torn_line(path)


def test_a_file_of_one_torn_line_starts_again(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b"\0" * 3_000_000)
    assert lines.read_lines(path) == []
    lines.append_lines(path, [{"step": 1}])
    assert path.read_bytes() == b'{"step":1}\n'


def test_append_refuses_nan_and_whole_bad_lines_are_damage(tmp_path):
    path = tmp_path / "m.jsonl"
    with pytest.raises(ValueError, match="JSON"):
        lines.append_lines(path, [{"loss": float("nan")}])
    assert not path.exists()
    path.write_text('{"a":1}\n{"a"\n{"a":2}\n')
    with pytest.raises(Damaged):
        lines.read_lines(path)
    path.write_text("[1]\n")
    with pytest.raises(Damaged, match="not a JSON object"):
        lines.read_lines(path)


def test_failed_append_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "m.jsonl"
    lines.append_lines(path, [{"step": 1}])
    monkeypatch.setattr(os, "fsync", fail(errno.ENOSPC))
    with pytest.raises(WriteFailed, match="disk full"):
        lines.append_lines(path, [{"step": 2}])
    assert path.read_bytes() == b'{"step":1}\n'


def test_link_or_copy(tmp_path, monkeypatch):
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("new")
    target.write_text("old")
    files.link_or_copy(source, target)
    files.link_or_copy(source, target)  # the same file already
    assert target.samefile(source)
    monkeypatch.setattr(os, "link", fail(errno.EPERM))
    files.link_or_copy(source, tmp_path / "c")
    assert (tmp_path / "c").read_text() == "new"
    assert not (tmp_path / "c").samefile(source)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]
    with pytest.raises(ReadFailed):
        files.link_or_copy(tmp_path / "none", tmp_path / "d")
