"""The page: what it says without a browser, and what it does in one."""

import json
import re
import shutil
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait
from test_cli import REPO, fails, mdmbench
from test_table import EB, GAMMA, TOP1, record, write

from mdmbench import report, resolve
from mdmbench.base import NEVER, Example, Seconds
from mdmbench.errors import UserError
from mdmbench.frontier import savings
from mdmbench.report import document
from mdmbench.report.page import SCRIPTS, STYLES
from mdmbench.report.tally import kind
from mdmbench.rows import read, rows, tabled
from mdmbench.store import Run

DAY = date(2026, 1, 2)
EVIL = '</script><img src=x onerror="window.evil=1">&amp;<b>\'\N{LINE SEPARATOR}'
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def sudokus(count: int) -> list[Example]:
    return list(resolve.task("sudoku", {"side": 4}).examples(count, 0))  # type: ignore[arg-type]


def decoded(example: Example, step: int, wrong: bool = False, **fields: Any) -> Any:
    """The blanks are filled `step` at a time from the left; where wrong, the last with another."""
    blanks = [i for i, cell in enumerate(example.cells) if cell is None]
    at = [blanks.index(i) // step if i in blanks else NEVER for i in range(16)]
    answer = [*example.target]
    if wrong:
        answer[blanks[-1]] = "1" if answer[blanks[-1]] != "1" else "2"
    return record(
        example.id,
        max(at) + 1,
        not wrong,
        answer="".join(answer),
        committed_at=at,
        confidence=[0.5 if a >= 0 else 0.0 for a in at],
        entropy=[0.01 * (i + 1) if a >= 0 else 0.0 for i, a in enumerate(at)],
        meta=dict(example.meta),
        **fields,
    )


@pytest.fixture
def pair(tmp_path: Path) -> list[Run]:
    """Top-1, and EB three at a time, which gets the third example and the fifth wrong."""
    puzzles = sudokus(8)
    slow = [decoded(e, 1) for e in puzzles]
    quick = [decoded(e, 3, i in (2, 4), seconds=Seconds(0.01)) for i, e in enumerate(puzzles)]
    return [
        write(tmp_path / "runs", "topk", TOP1, slow, task_knobs={"side": 4}),
        write(tmp_path / "runs", "eb", EB, quick, task_knobs={"side": 4}),
    ]


def said(page: bytes) -> dict[str, Any]:
    """The document in a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.decode())
    assert found
    held = json.loads(found[1])
    assert isinstance(held, dict)
    return held


def built(runs: list[Run], **options: Any) -> dict[str, Any]:
    return said(report.build(runs, rows(runs), made=DAY, **options))


def test_the_document_has_exactly_these_keys(pair: list[Run]) -> None:
    found = built(pair)
    assert sorted(found) == sorted(
        ["schema", "title", "version", "made", "empty", "groups", "settings", "environments"]
    )
    assert (found["title"], found["made"], found["empty"]) == (
        "Samplers on sudoku",
        "2 January 2026",
        0,
    )
    (group,) = found["groups"]
    keys = ["title", "model", "task", "headline", "words", "columns", "rows", "kinds"]
    assert list(group) == [*keys, "properties", "examples", "traces"]
    base, row = group["rows"]
    assert (base["label"], base["baseline"]) == ("topk k=1 entropy", True)
    assert (row["label"], row["numbers"]) == (f"eb {GAMMA}=0.1 entropy", f"{GAMMA}=0.1")
    assert row["score"][0] == 75 and row["n"] == 8
    assert row["seconds"] == [0.01, 0.01, 0, 0]
    assert group["columns"][:3] == ["solved\n%", "NFE", "speed-up\nNFE"]
    assert row["cells"][0] == ["75.0", "[40.9, 92.9]", False]


def test_a_group_is_told_by_its_best_score_and_by_what_speed_costs_no_quality(
    pair: list[Run],
) -> None:
    known = read(pair)
    for margin, sentence in {
        0.01: "eb entropy: no speed-up is shown at no more than 1 point lost: even without a "
        "flip, 8 examples leave 32.4 points possible, and 381 are needed.",
        0.7: f"eb {GAMMA}=0.1 entropy: 2.6x fewer NFE [2.4, 2.8] at no more than 70 points lost "
        "(95 %).",
    }.items():
        saved = savings(tabled(pair, known), known, margin)
        assert built(pair, savings=saved)["groups"][0]["words"] == [
            "Best: topk k=1 entropy, 100.0 % [67.6, 100.0] solved at 8.5 NFE.",
            sentence,
        ]


def test_examples_on_which_runs_disagree_are_played_first(pair: list[Run]) -> None:
    ids = [e.id for e in sudokus(8)]
    group = built(pair, examples=3)["groups"][0]
    shown = group["traces"]["examples"]
    assert [e["id"] for e in shown] == [ids[2], ids[4], ids[0]]
    assert group["examples"]["total"] == 8
    assert shown[0]["target"] == [*sudokus(3)[2].target]
    assert (shown[0]["width"], len(shown[0]["walls"])) == (4, 16)
    trace = shown[0]["runs"]["1"]
    assert trace["at"] == decoded(sudokus(3)[2], 3).committed_at
    assert sorted(trace) == sorted(
        ["symbols", "at", "confidence", "entropy", "scores", "notes", "nfe"]
    )
    assert built(pair, examples=0)["groups"][0]["traces"]["examples"] == []


def test_nothing_a_record_says_can_leave_the_data(tmp_path: Path) -> None:
    """Its task is gone too: what the record holds has to do."""
    made = record(
        EVIL,
        1,
        answer=EVIL,
        pieces=[EVIL],
        committed_at=[0],
        notes={EVIL: EVIL},
        meta={EVIL: EVIL},
        scores={"solved": 0.5, EVIL: 1.0},
    )
    run = write(
        tmp_path, "eb", {"gamma": 1, "proxy": EVIL}, [made], task="gone.py:Gone", model=EVIL
    )
    page = report.build([run], rows([run]), title=EVIL, made=DAY)
    text = page.decode()
    assert text.count("</script>") == 2 and "<img" not in text and "<b>" not in text
    assert "\N{LINE SEPARATOR}" not in said_part(text)
    (group,) = said(page)["groups"]
    assert group["examples"]["ids"] == [EVIL]
    assert group["traces"]["examples"][0]["runs"]["0"]["symbols"] == [EVIL]
    assert "gone.py" in group["traces"]["note"]


def said_part(text: str) -> str:
    return text[text.index('id="data"') :].partition("</script>")[0]


def test_the_page_allows_its_own_script_and_style_and_no_address(pair: list[Run]) -> None:
    text = report.build(pair, rows(pair)).decode()
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', text)
    assert policy and policy[1].startswith("default-src 'none'; script-src 'sha256-")
    for tag in ("<style>", '<script type="module">'):
        inside = text.partition(tag)[2].partition(f"</{tag[1:].split('>')[0].split()[0]}>")[0]
        digest = b64encode(sha256(inside.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy[1]
    assert set(re.findall(r"https?://[^\s\"']*", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(link|img|iframe)|\bon\w+=\"|@import|url\(", text)


def test_a_page_stays_under_its_size(pair: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """First fewer examples are played, then fewer listed, then it is too much."""
    empty = len(report.build(pair, rows(pair), examples=0))
    monkeypatch.setattr(report, "SLACK", 100)
    monkeypatch.setattr(report, "LIMIT", empty + 3000)
    page = report.build(pair, rows(pair))
    played = said(page)["groups"][0]["traces"]["examples"]
    assert len(page) < report.LIMIT and 0 < len(played) < 8
    monkeypatch.setattr(report, "LIMIT", empty)
    page = report.build(pair, rows(pair))
    assert len(page) < empty and 0 < len(said(page)["groups"][0]["examples"]["ids"]) < 8
    monkeypatch.setattr(report, "LIMIT", 10_000)
    with pytest.raises(UserError, match=r"2 runs do not fit into a page of 0\.01 MB"):
        report.build(pair, rows(pair))


def test_the_table_of_examples_is_capped_and_says_so(
    pair: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document, "ROOM", 6)
    group = built(pair)["groups"][0]
    assert group["examples"]["ids"] == [e.id for e in sudokus(3)]
    assert group["examples"]["scores"] == [[1, 1, 1], [1, 1, 0]]
    assert group["examples"]["total"] == 8
    assert group["kinds"] == {"names": ["solved", "wrong"], "rows": [[8, 0], [6, 2]]}


def test_ids_are_listed_as_people_count_and_gaps_stay_gaps(tmp_path: Path) -> None:
    runs = [
        write(tmp_path, "topk", TOP1, [record("e10", 9), record("e2", 8)], task="gone.py:Gone"),
        write(tmp_path, "eb", EB, [record("e2", 1, 0.25), record("e1", 1)], task="gone.py:Gone"),
    ]
    table = built(runs)["groups"][0]["examples"]
    assert table["ids"] == ["e1", "e2", "e10"]
    assert table["scores"] == [[None, 1, 1], [1, 0.25, None]]
    assert table["nfe"] == [[None, 8, 9], [1, 1, None]]


@pytest.mark.parametrize(
    ("scores", "notes", "wanted"),
    [
        ({"solved": 1.0}, {}, "solved"),
        ({"solved": 0.5}, {}, "partly"),
        ({"solved": 0.0}, {}, "wrong"),
        ({"solved": float("nan")}, {}, "not scored"),
        ({}, {}, "not scored"),
        ({"solved": 0.0}, {"unasked": "too long"}, "unasked"),
        ({"solved": 1.0}, {"solved outcome": "pass"}, "solved"),
        ({"solved": 0.0}, {"solved outcome": "timeout"}, "out of time"),
        ({"solved": 0.0}, {"other outcome": "timeout"}, "wrong"),
    ],
)
def test_answers_have_kinds(scores: dict[str, float], notes: dict[str, str], wanted: str) -> None:
    assert kind(record("a", 1, scores=scores, notes=notes), "solved") == wanted


def test_scores_are_shown_by_what_is_known_of_the_examples(tmp_path: Path) -> None:
    """Few values each, many numbers in ranges, names and what is always the same not at all."""
    made = [
        record(
            f"e{i}",
            1,
            i < 6,
            meta={"level": "hard" if i % 2 else "easy", "size": i, "who": f"n{i}", "one": 1},
        )
        for i in range(12)
    ]
    level, size = built([write(tmp_path, "eb", EB, made, task="gone.py:Gone")])["groups"][0][
        "properties"
    ]
    assert (level["name"], level["values"]) == ("level", ["easy", "hard"])
    assert level["rows"] == [[[0.5, 6], [0.5, 6]]]
    assert size["values"] == ["0 to 1", "2 to 3", "4 to 5", "6 to 7", "8 to 9", "10 to 11"]
    assert size["rows"] == [[[1, 2]] * 3 + [[0, 2]] * 3]


def test_settings_that_all_runs_share_are_said_once(pair: list[Run]) -> None:
    found = built(pair)
    shared = dict(found["settings"]["shared"])
    assert shared["model"] == "tiny" and shared["task_knobs.side"] == "4"
    assert "knobs.gamma" in found["settings"]["columns"] and "knobs.proxy" in shared
    names = [row[0] for row in found["settings"]["rows"]]
    assert names == ["sudoku: topk k=1 entropy", f"sudoku: eb {GAMMA}=0.1 entropy"]
    assert found["environments"]["shared"] == [["device", "cpu"]]


def test_machines_that_differ_are_told_apart(tmp_path: Path) -> None:
    runs = [
        write(tmp_path, "topk", TOP1, [record("a", 9)], device="cpu", task="gone.py:Gone"),
        write(tmp_path, "eb", EB, [record("a", 3)], device="cuda", task="gone.py:Gone"),
    ]
    found = built(runs)["environments"]
    assert found == {
        "shared": [],
        "columns": ["device"],
        "rows": [["Gone: topk k=1 entropy", "cpu"], [f"Gone: eb {GAMMA}=0.1 entropy", "cuda"]],
    }


def test_a_value_that_numerics_alone_would_move_as_far_is_marked(pair: list[Run]) -> None:
    base, row = rows(pair)
    marked = replace(row, inside=frozenset({"solved"}))
    group = said(report.build(pair, [base, marked]))["groups"][0]
    cells = [[inside for *_, inside in row["cells"]] for row in group["rows"]]
    assert not any(cells[0]) and cells[1] == [True, *[False] * (len(cells[1]) - 1)]


def test_a_page_without_time_has_none(pair: list[Run]) -> None:
    silent = [row.untimed() for row in rows(pair)]
    (group,) = said(report.build(pair, silent))["groups"]
    assert all(row["seconds"] is None for row in group["rows"])
    assert not any("seconds" in column or "decode" in column for column in group["columns"])


def test_a_line_that_was_cut_off_is_no_record(pair: list[Run]) -> None:
    with (pair[0].path / "records.jsonl").open("a") as file:
        file.write('{"id":"half')
    assert built(pair)["groups"][0]["examples"]["total"] == 8


def test_the_command_writes_the_page_and_the_figures(pair: list[Run], tmp_path: Path) -> None:
    page, folder = tmp_path / "out.html", tmp_path / "deep" / "figures"
    empty = write(tmp_path / "runs", "random", {"k": 1}, [])
    arguments = ["-o", page, "--title", "A < B", "--examples", "2", "--figures", folder]
    done = mdmbench("report", empty.path.parent, *arguments)
    assert done.exit_code == 0
    paths = [folder / name for name in ("pareto.svg", "pareto.png", "table.tex")]
    size = f"{page} {page.stat().st_size / 1e6:.2f} MB"
    assert done.stdout.splitlines() == [*map(str, paths), size]
    assert all(path.stat().st_size for path in paths)
    found = said(page.read_bytes())
    assert found["title"] == "A < B" and "<title>A &lt; B</title>" in page.read_text()
    assert found["empty"] == 1
    assert len(found["groups"][0]["traces"]["examples"]) == 2
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "runs", tmp_path / "deep", page])


def test_what_cannot_be_reported_is_the_users_to_mend(pair: list[Run], tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    empty = write(tmp_path / "empty", "random", {"k": 1}, [])
    (tmp_path / "none").mkdir()
    assert "no folder" in fails("report", tmp_path / "missing", "-o", page)
    assert "no records in" in fails("report", tmp_path / "none", "-o", page)
    assert "no records in" in fails("report", empty.path, "-o", page)
    assert "no folder" in fails("report", pair[0].path, "-o", tmp_path / "no" / "out.html")
    assert "is a folder" in fails("report", pair[0].path, "-o", tmp_path)
    long = tmp_path / ("a" * 300 + ".html")
    assert "File name too long" in fails("report", pair[0].path, "-o", long)
    figures = ["-o", page, "--figures", pair[0].path / "spec.json"]
    assert "cannot write" in fails("report", pair[0].path, *figures)
    assert not page.exists()


def test_the_wheel_holds_the_page_and_its_scripts() -> None:
    files = {f.distribution_path for f in WheelBuilder(str(REPO)).recurse_included_files()}
    parts = {f"mdmbench/report/{name}" for name in ("page.html", *STYLES, *SCRIPTS)}
    assert parts <= files


# In a browser


class Browser:
    """Chromium without a window; what it prints and what it asks for is kept."""

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM and DRIVER
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        for switch in (
            "headless",
            "no-sandbox",
            "disable-gpu",
            "disable-dev-shm-usage",
            "no-first-run",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            f"user-data-dir={folder}",
        ):
            options.add_argument(f"--{switch}")
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.tell("Emulation.setFocusEmulationEnabled", enabled=True)

    def tell(self, command: str, **arguments: Any) -> None:
        self.driver.execute_cdp_cmd(command, arguments)

    def show(self, page: Path, width: int = 1280, scheme: str = "light") -> None:
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.tell("Emulation.setDeviceMetricsOverride", **metrics)
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.tell("Emulation.setEmulatedMedia", features=features)
        self.driver.get(page.as_uri())
        WebDriverWait(self.driver, 60).until(lambda _: self.ready())

    def ready(self) -> str | None:
        """Milliseconds from the page's first moment until it could be used."""
        return self.run("return document.documentElement.dataset.ready")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map((n) => n.textContent)"
        found = self.run(script, selector)
        assert isinstance(found, list)
        return found

    def complaints(self) -> list[Any]:
        """Messages of the console, and addresses that were asked for."""
        asked = self.run("return performance.getEntriesByType('resource').map((e) => e.name)")
        return [*self.driver.get_log("browser"), *asked]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not CHROMIUM or not DRIVER:
        pytest.skip("needs chromium and chromedriver")
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.driver.quit()


@pytest.fixture
def page(pair: list[Run], tmp_path: Path) -> Path:
    path = tmp_path / "page.html"
    report.write(report.build(pair, rows(pair), made=DAY), path)
    return path


def test_the_page_draws_itself_without_a_word_in_the_console(browser: Browser, page: Path) -> None:
    browser.show(page)
    assert browser.complaints() == []
    assert browser.texts("h1") == ["Samplers on sudoku"]
    assert browser.texts("h2") == ["sudoku · tiny", "Settings", "Environment"]
    assert len(browser.texts("#g0-front .point")) == 2
    assert len(browser.texts("#g0-front .ring")) == 1


def test_every_step_of_the_player_shows_what_was_committed_by_then(
    browser: Browser, page: Path
) -> None:
    """The first example is the third puzzle, the first on which the runs disagree."""
    browser.show(page)
    puzzle = sudokus(3)[2]
    ats = [decoded(puzzle, step).committed_at for step in (1, 3)]
    last = max(ats[0]) + 1
    slider = browser.find("#g0-play input[type=range]")
    assert slider.get_attribute("max") == str(last)
    for step in range(last + 1):
        assert browser.find("#g0-play output").text == f"Step {step} of {last}"
        for side, at in enumerate(ats):
            counted = f"""return document.querySelectorAll('#g0-play .lane')[{side}]
                .querySelectorAll('[data-filled]').length"""
            assert browser.run(counted) == sum(0 <= a < step for a in at)
        slider.send_keys(Keys.ARROW_RIGHT)
    digits = browser.texts("#g0-play .lane:first-child .symbol")
    assert digits == list(puzzle.target)
    assert len(browser.texts("#g0-play .bad")) == 1
    counts = browser.texts("#g0-play .counts")
    assert counts[0].startswith(f"Step {last} of {last}: 1 committed, entropies 0.")
    assert counts[1].startswith(f"Full since step {max(ats[1]) + 1}; {last} of {last} filled;")


def test_the_player_is_played_by_keys(browser: Browser, page: Path) -> None:
    browser.show(page)
    player = browser.find("#g0-play .player")
    place = browser.find("#g0-play output")
    player.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert place.text.startswith("Step 1 of")
    assert browser.texts("#g0-play [aria-live]")[0].startswith("Step 1. topk k=1 entropy: 1 of")
    player.send_keys(Keys.END)
    total = place.text.split()[-1]
    assert place.text == f"Step {total} of {total}"
    player.send_keys(Keys.HOME)
    player.send_keys(Keys.SPACE)
    assert browser.find("#g0-play .play").text == "Pause"
    player.send_keys(Keys.SPACE)
    assert browser.find("#g0-play .play").text == "Play"


def test_only_examples_that_both_runs_have_can_be_chosen(browser: Browser, tmp_path: Path) -> None:
    puzzles = sudokus(3)
    knobs: Any = {"task_knobs": {"side": 4}}
    runs = [
        write(tmp_path, "topk", TOP1, [decoded(e, 1) for e in puzzles], **knobs),
        write(tmp_path, "eb", EB, [decoded(e, 2) for e in puzzles[:2]], **knobs),
        write(tmp_path, "random", {"k": 4}, [decoded(puzzles[2], 4)], **knobs),
    ]
    report.write(report.build(runs, rows(runs)), tmp_path / "page.html")
    browser.show(tmp_path / "page.html")
    names = "#g0-play label:nth-child(3) option"
    assert browser.texts(names) == [puzzles[0].id, puzzles[1].id]
    right = browser.find("#g0-play label:nth-child(2) select")
    right.send_keys("random")
    assert browser.texts(names) == [puzzles[2].id]
    browser.find("#g0-play label:nth-child(1) select").send_keys("eb")
    assert browser.texts(names) == []
    assert "no example in common" in browser.find("#g0-play .lanes").text
    assert browser.complaints() == []


def test_a_run_without_confidences_is_coloured_by_step_alone(
    browser: Browser, tmp_path: Path
) -> None:
    bare = [replace(decoded(e, 2), confidence=[], entropy=[]) for e in sudokus(2)]
    run = write(tmp_path, "eb", EB, bare, task_knobs={"side": 4})
    report.write(report.build([run], rows([run])), tmp_path / "page.html")
    browser.show(tmp_path / "page.html")
    assert browser.texts("#g0-play option:disabled") == ["entropy", "confidence"]
    browser.find("#g0-play .player").send_keys(Keys.ARROW_RIGHT)
    assert browser.texts("#g0-play .counts") == ["Step 1 of 6: 2 committed; 2 of 11 filled."]
    assert browser.complaints() == []


def test_a_table_sorts_by_click_and_by_key(browser: Browser, page: Path) -> None:
    browser.show(page)
    head = browser.find("#g0-results thead th:nth-child(3)")
    calls = "#g0-results tbody td:nth-child(3)"
    slow, quick = sorted(browser.texts(calls), key=lambda text: -float(text.split("[")[0]))
    head.find_element(By.TAG_NAME, "button").click()
    assert (head.get_attribute("aria-sort"), browser.texts(calls)) == ("descending", [slow, quick])
    head.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert (head.get_attribute("aria-sort"), browser.texts(calls)) == ("ascending", [quick, slow])


def test_a_marked_value_is_sorted_as_a_number(
    browser: Browser, pair: list[Run], tmp_path: Path
) -> None:
    base, row = rows(pair)
    marked = [base, replace(row, inside=frozenset({"solved"}))]
    report.write(report.build(pair, marked), tmp_path / "page.html")
    browser.show(tmp_path / "page.html")
    scores = "#g0-results tbody td:nth-child(2)"
    assert browser.texts(scores) == ["100.0[67.6, 100.0]", "~75.0[40.9, 92.9]"]
    head = browser.find("#g0-results thead th:nth-child(2) button")
    head.send_keys(Keys.ENTER, Keys.ENTER)
    assert browser.texts(scores) == ["~75.0[40.9, 92.9]", "100.0[67.6, 100.0]"]


def test_examples_are_found_sorted_and_opened(browser: Browser, page: Path) -> None:
    browser.show(page)
    ids = "#g0-examples tbody th"
    puzzles = [e.id for e in sudokus(8)]
    assert browser.texts(ids) == puzzles
    browser.find("#g0-examples input[type=checkbox]").click()
    assert browser.texts(ids) == [puzzles[2], puzzles[4]]
    browser.find("#g0-examples input[type=search]").send_keys(puzzles[4])
    assert browser.texts(ids) == [puzzles[4]]
    browser.find(f"{ids} button").click()
    chosen = browser.find("#g0-play label:nth-child(3) select")
    assert browser.run("return arguments[0].selectedOptions[0].text", chosen) == puzzles[4]


def test_a_point_tells_its_row_when_it_is_reached_by_keys(browser: Browser, page: Path) -> None:
    browser.show(page)
    points = browser.driver.find_elements(By.CSS_SELECTOR, "#g0-front .point")
    points[0].send_keys(Keys.ARROW_RIGHT)
    assert "topk k=1 entropy" in browser.find("#g0-front .tip").text
    assert "solved % 100.0 [67.6, 100.0]" in (points[1].get_attribute("aria-label") or "")
    points[1].send_keys(Keys.ESCAPE)
    assert browser.texts("#g0-front .tip") == []


def test_markup_in_a_record_is_shown_as_it_was_written(browser: Browser, tmp_path: Path) -> None:
    made = record(EVIL, 1, answer=EVIL, pieces=[EVIL], committed_at=[0], notes={EVIL: EVIL})
    run = write(tmp_path, "eb", {"gamma": 1, "proxy": EVIL}, [made], task="gone.py:Gone")
    report.write(report.build([run], rows([run]), title=EVIL), tmp_path / "page.html")
    browser.show(tmp_path / "page.html")
    browser.find("#g0-play .player").send_keys(Keys.END)
    assert browser.run("return [document.images.length, window.evil ?? 0]") == [0, 0]
    assert browser.texts("h1") == browser.texts("#g0-play .piece") == [EVIL]
    assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Browser, page: Path, scheme: str) -> None:
    """WCAG 2.2, AA: 4.5 to 1."""
    browser.show(page, scheme=scheme)
    browser.find("#g0-play .player").send_keys(Keys.END)
    assert browser.run(CONTRAST) == []
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert ("252" in ground) == (scheme == "light")


CONTRAST = """
const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((v) => v <= 10 ? v / 3294 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const ground = (node) => {
  for (let at = node; at; at = at.parentElement) {
    for (const colour of [getComputedStyle(at, "::before"), getComputedStyle(at)]) {
      const found = numbers(colour.backgroundColor);
      if (found[3] !== 0) return found;
    }
  }
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const found = new Set();
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || node.closest("script, svg, option, :disabled")) continue;
  const one = light(numbers(getComputedStyle(node).color));
  const other = light(ground(node));
  const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  if (ratio < 4.5) found.add(`${node.className}: ${node.textContent.slice(0, 20)}: ${ratio}`);
}
return [...found];
"""


def test_a_phone_never_scrolls_sideways(browser: Browser, page: Path) -> None:
    browser.show(page, width=360)
    for node in browser.driver.find_elements(By.CSS_SELECTOR, "summary"):
        node.click()
    browser.run("document.querySelector('#g0-front .point').focus()")
    assert browser.run("return document.documentElement.scrollWidth") == 360


@pytest.mark.slow
def test_20000_records_are_ready_in_3_seconds(
    browser: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten runs of two thousand examples, with traces of fifty."""
    puzzles = sudokus(2000)
    knobs: Any = {"task_knobs": {"side": 4}}

    runs = [
        write(tmp_path, "topk", {**TOP1, "k": k}, [decoded(e, k) for e in puzzles], **knobs)
        for k in range(1, 11)
    ]
    path = tmp_path / "page.html"
    report.write(report.build(runs, rows(runs)), path)
    browser.show(path)
    ready = int(browser.ready() or 0)
    with capsys.disabled():
        print(f" {path.stat().st_size / 1e6:.2f} MB, ready after {ready} ms", end="")
    assert browser.run("return document.querySelectorAll('#g0-examples tbody tr').length") == 25
    assert ready < 3000
