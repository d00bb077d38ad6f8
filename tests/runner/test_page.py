import dataclasses
import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.config import Config
from ssdnet_jax.core.decision import Decision
from ssdnet_jax.core.defects import Defect, find_defects
from ssdnet_jax.methods.base import Localization
from ssdnet_jax.methods.registry import make_method
from ssdnet_jax.runner import page as pages
from ssdnet_jax.runner.page import open_page, write_page
from ssdnet_jax.runner.record import write_result
from ssdnet_jax.runner.verdicts import JudgedImage
from ssdnet_jax.runner.workdir import Row, open_workdir

# What could break a page: markup, the end of a script, addresses, letters of any kind, stray bytes.
NAMES = (
    "a<b>&\"'`${x}.png",
    "x/</script><img src=x onerror=alert(1)>.png",
    "100% #1 ?.png",
    "織り目/деталь.png",
    "stray\udcff.png",
    "__proto__",
)


@pytest.fixture
def workdir(tmp_path):
    return open_workdir(tmp_path / "out", make_method("fca", Config()), root=None)


def found(peak=50.0, threshold=20.0):
    """A result whose map is in calibrated units: median 0, upper quartile 1."""
    score_map = np.tile(np.array([-1, 0, 0, 1], np.float32), (40, 12))
    score_map[5:9, 10:16] = peak
    mask = score_map > threshold
    box = Defect(1, 10, 5, 6, 4, 24, peak, peak, 1e-4, 12.5, 6.5)
    verdict = "anomalous" if mask.any() else "good"
    decision = Decision(peak, 2.0**-peak, verdict, 0.01, threshold, mask, score_map)
    image = np.full((40, 48, 1), 0.5, np.float32)
    return Localization(score_map, peak, decision, (box,) * bool(mask.any()), image)


def put(workdir, name, **values):
    """Files and row of a picture, as a run leaves them."""
    row = write_result(workdir, name, found(**values), heatmaps="anomalous")
    workdir.append(row)
    return row


def script(workdir, name):
    """The arguments of the call that a file of the page consists of."""
    text = (workdir.path / "index" / name).read_text(encoding="ascii")
    (arguments,) = re.findall(r"\Assdnet\.\w+\((.*)\)\n\Z", text, re.DOTALL)
    return json.loads(f"[{arguments}]")


def entries(workdir):
    (state,) = script(workdir, "state.js")
    parts = [script(workdir, f"rows-{n}.js") for n in range(len(state["chunks"]))]
    assert [number for number, _ in parts] == list(range(len(parts)))
    return [entry for _, rows in parts for entry in rows]


def test_the_page_says_of_each_picture_what_was_decided(workdir):
    names = ["s/bad.png", "good.png", "lost.png", "blind.png"]
    with open_page(workdir, [*names, "later.png"]) as page:
        page.add(put(workdir, "s/bad.png"))
        page.add(put(workdir, "good.png", peak=8.0))
        page.add(Row("lost.png", "error", error="lost.png: damaged"))
        blind = dataclasses.replace(
            found(),
            decision=dataclasses.replace(
                found(8.0).decision, score=float("nan"), p_value=1.0, verdict="unjudged"
            ),
            defects=(),
        )
        page.add(write_result(workdir, "blind.png", blind))
    bad, good, lost, unjudged = entries(workdir)
    assert [e["name"] for e in entries(workdir)] == names
    assert [e["verdict"] for e in entries(workdir)] == ["anomalous", "good", "failed", "unjudged"]
    assert (bad["score"], bad["threshold"], bad["width"], bad["height"]) == (50, 20, 48, 40)
    assert bad["defects"] == [[10, 5, 6, 4, 24, 50]] and good["defects"] == []
    assert lost["error"] == "lost.png: damaged" and unjudged["score"] is None
    (state,) = script(workdir, "state.js")
    assert (state["name"], state["done"], state["total"]) == ("out", 4, 5)
    assert not state["running"]
    # Where the figure's panels are is where they were drawn.
    figure = Image.open(workdir.heatmap_path("s/bad.png"))
    assert list(figure.size) == bad["figure"]
    x, y, width, height = bad["panels"]["Input"]
    assert (np.asarray(figure.crop((x, y, x + width, y + height))) == 128).all()
    # Heat maps of anomalous pictures only, thumbnails of all.
    assert "panels" not in good and not workdir.heatmap_path("good.png").exists()
    assert all(workdir.thumbnail_path(name).is_file() for name in ("s/bad.png", "good.png"))


def test_names_cannot_leave_their_place_in_a_script(workdir):
    with open_page(workdir, NAMES) as page:
        for name in NAMES:
            page.add(Row(name, "error", error=f"{name}: damaged"))
    text = (workdir.path / "index" / "rows-0.js").read_text(encoding="ascii")
    assert "<" not in text
    assert [e["name"] for e in entries(workdir)] == list(NAMES)


def test_a_run_that_goes_on_shows_what_was_finished_and_replaces_what_failed(workdir):
    put(workdir, "a.png")
    workdir.append(Row("b.png", "error", error="b.png: damaged"))
    again = open_workdir(workdir.path, make_method("fca", Config()), root=None)
    again = dataclasses.replace(again, finished={"a.png": Row("a.png", "ok")})
    with open_page(again, ["a.png", "b.png"]) as page:
        (state,) = script(again, "state.js")
        assert (state["running"], state["done"], state["total"]) == (True, 1, 2)
        assert [e["verdict"] for e in entries(again)] == ["anomalous"]
        page.add(Row("b.png", "error", error="b.png: damaged"))
        page.add(put(again, "b.png", peak=3.0))
    assert [(e["name"], e["verdict"]) for e in entries(again)] == [
        ("a.png", "anomalous"),
        ("b.png", "good"),
    ]


def test_damaged_files_are_no_reason_to_fail(workdir):
    names = ["a.png", "b.png", "c.png", "d.png"]
    rows = [put(workdir, name) for name in names]
    Image.new("L", (3, 3)).save(workdir.thumbnail_path("a.png"), comment=b"{")
    workdir.thumbnail_path("b.png").write_bytes(b"no picture")
    workdir.thumbnail_path("c.png").unlink()
    workdir.decision_path("d.png").unlink()
    with open_page(workdir, names) as page:
        for row in rows:
            page.add(row)
    *others, last = entries(workdir)
    assert [(e["verdict"], "thumbnail" in e) for e in others] == [("anomalous", False)] * 3
    assert last["verdict"] == "failed" and "d.png.json" in last["error"]


def test_the_last_page_has_the_order_of_the_table_and_its_final_verdicts(workdir):
    for name in ("b.png", "a.png"):
        put(workdir, name)
    workdir.order(["a.png", "b.png"])
    verdicts = [
        JudgedImage("b.png", "unsure", 0.1, None, 50.0, rank_p_value=0.2),
        JudgedImage("a.png", "good", 0.3, None, 50.0),
        JudgedImage("gone.png", "good", 1, None, 2),
    ]
    write_page(workdir, verdicts, total=2)
    first, second = entries(workdir)
    assert (first["name"], first["verdict"], first["rank"]) == ("a.png", "good", 1)
    assert (second["verdict"], second["rank"], second["rank_p"]) == ("unsure", 0, 0.2)


def test_a_run_rewrites_the_last_rows_only_and_not_at_every_picture(workdir, monkeypatch):
    monkeypatch.setattr(pages, "_ROWS", 10)
    clock = [0.0]
    monkeypatch.setattr(pages.time, "monotonic", lambda: clock[0])
    written = []
    real = pages.write_bytes
    monkeypatch.setattr(
        pages,
        "write_bytes",
        lambda path, content: (written.append(path.name), real(path, content)),
    )
    with open_page(workdir, []) as page:
        written.clear()
        for number in range(35):
            clock[0] += 0.5
            page.add(Row(f"{number}.png", "error", error="damaged"))
        shown = len(entries(workdir))
    assert 30 <= shown < 35
    assert written.count("rows-0.js") <= 4 and written.count("state.js") <= 10
    assert len(entries(workdir)) == 35
    # A later run with fewer pictures leaves nothing of it.
    write_page(workdir, [], total=0)
    assert [p.name for p in (workdir.path / "index").iterdir()] == ["state.js"]


def test_a_page_that_cannot_be_written_is_an_error_of_one_line(workdir):
    from ssdnet_jax.errors import InputError

    (workdir.path / "index.html").mkdir()
    with pytest.raises(InputError, match="cannot be used as a work folder"):
        write_page(workdir, [], total=0)


def test_a_list_of_very_many_defects_is_cut(workdir):
    many = found()
    rows, columns = np.nonzero(np.indices((20, 24)).sum(axis=0) % 3 == 0)
    for row, column in zip(2 * rows, 2 * columns, strict=True):
        many.mask[row, column] = True
    _, defects = find_defects(many.score_map, many.mask, lambda parts, peaks: np.exp2(-peaks))
    many = dataclasses.replace(many, defects=defects)
    with open_page(workdir, ["a.png"]) as page:
        page.add(write_result(workdir, "a.png", many))
    (entry,) = entries(workdir)
    assert entry["count"] == len(defects) > len(entry["defects"]) == 50


# In a browser: what a person does, as a script at the end of the page, which writes what it saw.

_ACTIONS = """
<script>
const seen = {};
const wait = milliseconds => new Promise(done => setTimeout(done, milliseconds));
const press = (key, target = document.activeElement || document.body) =>
  target.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
const names = () => [...document.querySelectorAll(".card .name")].map(label => label.title);
const count = verdict => document.querySelector(`#filters [data-verdict=${verdict}] b`).textContent;
window.onerror = message => { seen.error = message; };
(async () => {
  await wait(1500);
  seen.first = names().slice(0, 6);
  seen.cards = document.querySelectorAll(".card").length;
  seen.counts = ["all", "anomalous", "good", "failed"].map(count);
  seen.links = [...document.querySelectorAll(".card img")].slice(0, 6)
    .map(image => [image.getAttribute("src"), image.naturalWidth]);
  seen.markup = document.querySelectorAll(".card b, .card .name img, .card script").length;
  press("ArrowRight"); press("ArrowRight"); press("ArrowLeft");
  seen.focused = document.activeElement.querySelector(".name").title;
  document.activeElement.click(); await wait(300);
  seen.open = document.getElementById("viewer").open;
  seen.name = document.getElementById("name").textContent;
  seen.boxes = document.querySelectorAll("#stage rect.over").length;
  const stage = document.getElementById("stage");
  press("b", stage); seen.hidden = document.querySelectorAll("#stage rect.over").length;
  press("1", stage); await wait(100);
  seen.panel = document.querySelector("#panels [aria-pressed=true]").textContent;
  seen.figure = document.querySelector("#stage img").naturalWidth;
  press("ArrowRight", stage); seen.next = document.getElementById("name").textContent;
  document.getElementById("close").click(); await wait(100);
  seen.closed = document.activeElement.className.includes("card") &&
    !document.getElementById("viewer").open;
  const slider = document.getElementById("slider");
  slider.value = 1000; slider.dispatchEvent(new Event("input")); seen.none = count("anomalous");
  slider.value = 0; slider.dispatchEvent(new Event("input")); seen.all = count("anomalous");
  seen.red = document.querySelectorAll(".card.anomalous").length > 0;
  document.getElementById("reset").click(); seen.reset = count("anomalous");
  document.querySelector("#filters [data-verdict=failed]").click();
  seen.failed = names(); seen.why = document.querySelector(".card .why").textContent;
  document.querySelector("#filters [data-verdict=all]").click();
  const search = document.getElementById("search");
  search.value = "PNG деталь"; search.dispatchEvent(new Event("input")); seen.searched = names();
  const result = document.createElement("pre"); result.id = "seen";
  result.textContent = JSON.stringify(seen); document.body.append(result);
})();
</script>
"""


def browse(page, profile, *flags):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        pytest.skip("no chromium: the page is not tried in a browser")
    command = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={profile}",
    ]
    command += ["--disable-background-networking", "--virtual-time-budget=20000", *flags]
    return subprocess.run(
        [*command, page.as_uri()], capture_output=True, timeout=120, check=True
    ).stdout.decode()


@pytest.mark.slow
@pytest.mark.parametrize("extra", [0, 10_000])
def test_a_person_finds_the_way_in_a_browser(workdir, tmp_path, extra):
    with open_page(workdir, NAMES) as page:
        for name, peak in zip(NAMES, (90, 80, 70, 60, 5, 3), strict=True):
            page.add(put(workdir, name, peak=float(peak)))
        page.add(Row("lost.png", "error", error="lost.png: <damaged>"))
        for number in range(extra):
            page.add(Row(f"more/{number}.png", "error", error="damaged"))
    path = workdir.path / "tried.html"
    path.write_text((workdir.path / "index.html").read_text().replace("</body>", _ACTIONS))
    dom = browse(path, tmp_path / "profile", "--dump-dom", "--window-size=1280,900")
    (text,) = re.findall(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)
    seen = json.loads(html.unescape(text))
    assert "error" not in seen
    assert seen["first"][:4] == list(NAMES[:4]) and seen["first"][5] == NAMES[5]
    assert seen["cards"] < 60
    assert seen["counts"] == [str(7 + extra), "4", "2", str(1 + extra)]
    assert [width for _, width in seen["links"]] == [48] * 6  # each was found and decoded
    assert seen["links"][0][0].startswith("thumbnails/a%3Cb%3E") and seen["markup"] == 0
    assert seen["focused"] == seen["name"] == NAMES[1] and seen["next"] == NAMES[2]
    assert (seen["open"], seen["boxes"], seen["hidden"], seen["closed"]) == (True, 1, 0, True)
    assert seen["panel"] == "Input" and seen["figure"] > 1000
    assert (seen["none"], seen["all"], seen["reset"]) == ("0", "6", "4") and seen["red"]
    assert seen["failed"][0] == "lost.png" and seen["why"] == "lost.png: <damaged>"
    assert seen["searched"] == [NAMES[3]]


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_light_or_dark_as_asked(workdir, tmp_path, dark):
    with open_page(workdir, NAMES) as page:
        page.add(put(workdir, NAMES[0]))
    flags = ["--blink-settings=preferredColorScheme=0"] if dark else []
    target = tmp_path / "page.png"
    flags += [f"--screenshot={target}", "--window-size=900,700"]
    browse(workdir.path / "index.html", tmp_path / "profile", *flags)
    with Image.open(target) as image:
        grey = np.asarray(image.convert("L"))
    assert (np.median(grey) < 60) == dark
    assert (grey[:60] > 150).any() and (grey[:60] < 120).any()  # its text can be told from it
