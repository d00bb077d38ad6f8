import pytest

from ssdnet_jax.data.files import write_atomically


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "m.tiff"
    write_atomically(path, lambda file: file.write(b"old"))
    before = path.read_bytes()

    def fail(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.tiff"]


def test_an_unfinished_write_is_not_visible_under_the_name(tmp_path):
    path = tmp_path / "m.bin"

    def look(file):
        file.write(b"x")
        assert not path.exists()

    write_atomically(path, look)
    assert path.read_bytes() == b"x"
