import pytest

from ssdnet_jax.reports.sets import COLUMNS, set_names, sets_table, write_sets_report


@pytest.fixture
def summaries():
    """Two sets and a method; the second has labels of whole images only."""
    keys = [key for _, key, _ in COLUMNS]
    rate = {"share": 0.25, "low": 0.1, "high": 0.6, "count": 8}
    full = {key: 0.1 + number / 10 for number, key in enumerate(keys)}
    full |= {f"{key}_interval": [0.05, 0.99] for key in keys}
    full |= {"images": 12, "detection": {"false_alarms": rate, "detected": None}}
    empty = {key: None for key in keys} | {f"{key}_interval": None for key in keys}
    empty |= {"images": 3, "detection": {"false_alarms": None, "detected": rate}}
    return {"<b>": {"mine": {"all": full}}, "labels\n": {"mine": {"all": empty}}}


def test_the_table_has_a_line_a_set_with_intervals(summaries):
    head, first, second = sets_table(summaries)
    assert head.split("  ")[0] == "set" and head.endswith("false alarms  found")
    assert "0.100 [0.050, 0.990]" in first and first.rstrip().endswith("–")
    assert second.startswith("labels\\n") and second.split()[-2:] == ["–", "2/8"]
    assert len({len(line) for line in (head, second)}) == 1  # columns are aligned


def test_the_page_links_to_each_set_and_escapes_names(summaries, tmp_path):
    folders = {name: name for name in summaries}
    write_sets_report(tmp_path / "r.html", summaries, folders=folders, notes={"Command": "a<b"})
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert 'href="%3Cb%3E/report.html">&lt;b&gt;</a>' in page and "a&lt;b" in page
    assert "0.050 – 0.990" in page and "2/8" in page and "<b>" not in page.split("<main>")[1]


def test_sets_of_one_name_take_their_folders_name_too(tmp_path):
    for name in ("a/set", "b/set", "c"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "list.csv").touch()
    paths = [tmp_path / name for name in ("a/set", "b/set", "c", "list.csv")]
    assert set_names(paths) == ["a_set", "b_set", "c", "list"]
    with pytest.raises(ValueError, match="another set that is called"):
        set_names([tmp_path / "c", tmp_path / "c" / ".." / "c"])
