"""The label page in a real browser, without a window."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import label_page
import pytest
from label_page import Page, chromium, served, until
from PIL import Image

from tapetum.data.labels.labels import NONE_OF_THESE

pytestmark = pytest.mark.skipif(label_page.missing() is not None, reason=str(label_page.missing()))
LEAST_TILES, MOST_TILES = 20, 400
FIRST_PICTURE_SECONDS, ANSWER_SECONDS = 10, 3  # of computing, by the server


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture
def page(driver, session):
    with served(session) as address:
        page = Page(driver, address)
        yield page
        assert page.complaints() == []
        driver.get("about:blank")


def rows(path):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def name_class(page, name):
    page.press("n")
    page.run("document.getElementById('naming-input').value = arguments[0]", name)  # no keyboard types emoji
    page.press("\ue007")  # Enter


def test_keys_alone_label_skip_undo_enlarge_and_name_classes(page, session):
    first = page.shown()
    page.press("n", "c", "a", "t", "\ue007")
    until(lambda: page.shown() != first)
    assert rows(session.answers.path) == [[first, "cat"]]
    second = page.shown()
    name_class(page, "dog")
    third = page.shown()
    page.press("1")
    assert rows(session.answers.path) == [[first, "cat"], [second, "dog"], [third, "cat"]]
    assert page.texts("#classes .name")[:2] == ["cat", "dog"]
    assert page.texts("#classes .count") == ["2", "1"]
    fourth = page.shown()
    page.press("x")
    assert rows(session.answers.path)[-1] == [fourth, NONE_OF_THESE]
    page.press("u", "u")
    assert rows(session.answers.path) == [[first, "cat"], [second, "dog"]]
    assert page.shown() == third
    page.press("s")
    assert page.shown() != third
    assert "1 skipped" in page.text("#counts")
    page.press("z")
    assert page.run("return document.getElementById('zoom').open")
    page.press("z")
    assert not page.run("return document.getElementById('zoom').open")
    page.press("7")
    assert "no class 7 yet" in page.text("#toast")
    page.press_with_shift("1")
    assert "no class 11 yet" in page.text("#toast")
    page.press("n", "e", "\ue004", "\ue004", "\ue007")  # two tabs, past "use" to "cancel", and Enter
    assert not page.run("return document.getElementById('naming').open")
    assert "e" not in page.texts("#classes .name")
    page.press("?")
    assert page.run("return document.getElementById('help').open")
    page.press("\ue00c")  # Escape
    for _ in range(10):
        page.press("2")
    assert len(rows(session.answers.path)) == 12
    assert "Every image has an answer" in page.text("#view")


def test_the_grid_takes_many_at_once_by_keys_and_by_clicks(page, session):
    page.press("n", "a", "\ue007")
    page.open("grid")
    assert "11 images" in page.text(".actions .note")
    page.press("\ue014", " ", "\ue014", " ")  # right, space
    assert "2 chosen" in page.text(".actions .note")
    page.press("1")
    assert session.answers.classes() == {"a": 3}
    until(lambda: len(page.texts(".tile")) == 9)
    page.click(".tile", 0)
    page.click(".tile", 2)
    name_class(page, "b")
    assert session.answers.classes() == {"a": 3, "b": 2}
    page.press("u")
    assert session.answers.classes() == {"a": 3, "b": 0}


def test_two_tabs_get_different_images_and_lose_nothing(page, session, driver):
    first = driver.current_window_handle
    address = driver.current_url
    driver.switch_to.new_window("tab")
    other, handles = Page(driver, address), [first, driver.current_window_handle]
    try:
        seen = []
        for turn in range(8):
            driver.switch_to.window(handles[turn % 2])
            tab = (page, other)[turn % 2]
            seen.append(tab.shown())
            if turn < 2:
                name_class(tab, "ab"[turn])
            else:
                tab.press(str(1 + turn % 2))
        assert len(set(seen)) == 8
        assert sorted(rows(session.answers.path)) == sorted([name, "ab"[i % 2]] for i, name in enumerate(seen))
        driver.switch_to.window(first)
        until(lambda: "8 of 12 labelled" in page.text("#counts"))  # what the other one did is seen
        page.press("u")
        assert [name for name, _ in rows(session.answers.path)] == [*seen[:6], seen[7]]
    finally:
        driver.switch_to.window(handles[1])
        driver.close()
        driver.switch_to.window(first)


NASTY = ["<script>window.hacked = 1</script>.png", "\"'`${x}<img src=x onerror=window.hacked=1>.png", "🐈 ]]>&amp;.png"]


@pytest.fixture
def nasty(photos):
    for name in NASTY:
        (photos / name.replace("/", "\u2215")).write_bytes((photos / "00.png").read_bytes())
    for number in range(12):
        next(photos.rglob(f"{number:02}.png")).unlink()


def test_names_and_classes_are_text_and_nothing_else(nasty, page, session):
    seen = []
    for label in ("<script>window.hacked=1</script>", "\"'><b>cat</b>", '🐈‍⬛, "quoted"'):
        seen.append(page.shown())
        assert page.text(".about .bidi") == seen[-1]
        name_class(page, label)
        assert label in page.texts("#classes .name")
    assert sorted(seen) == sorted(name.replace("/", "\u2215") for name in NASTY)
    assert [label for _, label in rows(session.answers.path)] == page.texts("#classes .name")[:3]
    page.open("grid")
    assert page.run("return window.hacked") is None
    assert page.run("return document.querySelectorAll('main script, main b, aside b').length") == 0


def test_a_page_from_elsewhere_gets_nothing(page, driver):
    address = driver.current_url
    driver.get("data:text/html,<title>elsewhere</title>")
    script = """
      const [address, done] = arguments, told = [];
      const image = new Image();
      image.onload = () => done('an image was shown'); image.onerror = () => done(told.join());
      fetch(address + 'undo', {method: 'POST', mode: 'no-cors', body: '{"tab": "t"}'})
        .then(() => fetch(address + 'state')).then(() => told.push('state was told'), () => told.push('refused'))
        .then(() => { image.src = address + 'image/1'; });
    """
    assert driver.execute_async_script(script, address) == "refused"
    driver.get_log("browser")  # which complains of it
    Page(driver, address)


def test_a_phone_shows_and_takes_everything_by_touch(page, session, driver):
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 780, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        name_class(page, "cat")
        page.click("#classes button")
        assert session.answers.classes() == {"cat": 2}
        assert page.run("return document.documentElement.scrollWidth <= innerWidth")
        heights = page.run("return [...document.querySelectorAll('#classes button')].map(one => one.offsetHeight)")
        assert min(heights) >= 44  # of a finger
        assert page.run("return document.querySelector('.picture').offsetHeight > 200")
        for view in (1, 2, 3):
            page.click("nav [data-view]", view)
            time.sleep(0.1)
            assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def label_process(folder):
    """The server as a process of its own, and its address."""
    command = [sys.executable, label_page.__file__, "photos", "labels.csv"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, start_new_session=True)
    return process, process.stdout.readline().strip()


def test_kill_9_and_a_new_start_lose_nothing(photos, tmp_path, driver):
    process, address = label_process(tmp_path)
    page = Page(driver, address)
    name_class(page, "cat")
    name_class(page, "dog")
    page.press("1")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    page.press("1")
    until(lambda: "Start tapetum label again" in page.text("#toast"))
    page.complaints()
    before = rows(tmp_path / "labels.csv")
    assert len(before) == 3
    process, address = label_process(tmp_path)
    try:
        page = Page(driver, address)
        assert "3 of 12 labelled" in page.text("#counts")
        assert page.texts("#classes .name")[:2] == ["cat", "dog"]
        page.press("u")  # across the restart
        assert rows(tmp_path / "labels.csv") == before[:2]
    finally:
        process.kill()
        process.communicate()


def cpu_seconds(number):
    """Seconds that a process has computed, however busy the machine is."""
    fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(number):
    (line,) = [x for x in Path(f"/proc/{number}/status").read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def test_50_000_images_scroll_and_take_little_time_and_memory(tmp_path, driver):
    photos = tmp_path / "photos"
    photos.mkdir()
    for part in range(50):
        (photos / f"{part:02}").mkdir()
        Image.new("RGB", (48, 48), (5 * part, 90, 120)).save(photos / f"{part:02}" / "000.png")
        for number in range(1, 1000):
            os.link(photos / f"{part:02}" / "000.png", photos / f"{part:02}" / f"{number:03}.png")
    process, address = label_process(tmp_path)
    try:
        page = Page(driver, address)
        page.shown()
        assert cpu_seconds(process.pid) < FIRST_PICTURE_SECONDS
        at_start = memory_mb(process.pid)
        page.open("grid")
        assert "50000 images" in page.text(".actions .note")
        for share in (0.1, 0.35, 0.8, 1.0):
            page.run(
                "const box = document.querySelector('.scroller'); box.scrollTop = arguments[0] * box.scrollHeight",
                share,
            )
            until(lambda share=share: seen(page) and (share < 1 or "49/999.png" in seen(page)))
            assert LEAST_TILES < len(page.texts(".tile")) < MOST_TILES
        assert memory_mb(process.pid) - at_start < 150
        began = cpu_seconds(process.pid)
        page.click(".tile", 15)
        name_class(page, "cat")
        assert cpu_seconds(process.pid) - began < ANSWER_SECONDS
        assert len(rows(tmp_path / "labels.csv")) == 1
        takes_a_range_that_was_never_drawn(page, tmp_path / "labels.csv")
    finally:
        process.kill()
        process.communicate()


def takes_a_range_that_was_never_drawn(page, path):
    page.run("document.querySelector('.scroller').scrollTop = 0")
    until(lambda: seen(page))
    page.click(".tile", 0)
    page.run("document.querySelector('.scroller').scrollTop = 1e5")
    last = until(lambda: seen(page))[0]
    assert int(Path(last).stem) + 1000 * int(Path(last).parent.name) > 1000
    page.run(
        """
      const one = [...document.querySelectorAll('.tile')].find((tile) => tile.title === arguments[0]);
      one.dispatchEvent(new MouseEvent('click', { bubbles: true, shiftKey: true }));
    """,
        last,
    )
    page.settled()
    chosen = int(page.text(".actions .note").split()[0])
    page.press("1")
    given = {row[0] for row in rows(path)}
    assert last in given
    assert len(given) in (chosen, chosen + 1)
    assert chosen > 1000


def seen(page):
    """Names of the tiles in sight, once all of their pictures are there."""
    return page.run("""
      const box = document.querySelector('.scroller').getBoundingClientRect();
      const within = [...document.querySelectorAll('.tile')].filter((one) => {
        const place = one.getBoundingClientRect();
        return place.bottom > box.top + 1 && place.top < box.bottom - 1;
      });
      const ready = within.length && within.every((one) => one.querySelector('img').naturalWidth);
      return ready ? within.map((one) => one.title) : null;
    """)


def test_from_an_empty_file_to_a_trained_model_and_a_corrected_prediction(photos, tmp_path, driver, open_session):
    colours = ["red", "green", "blue"]
    session = open_session()
    with served(session) as address:
        page = Page(driver, address)
        for _ in range(9):
            name = colours[int(Path(page.shown()).stem) % 3]
            known = page.texts("#classes .name")
            page.press(str(known.index(name) + 1)) if name in known else name_class(page, name)
        page.open("train")
        page.run(
            "document.querySelector('.card input').value = 3; document.querySelector('.card select').value = 'steps'"
        )
        page.click("#start")
        assert page.run("return document.getElementById('start').disabled")
        until(lambda: "Step 3 of 3" in page.text(".train"), 120)
        until(lambda: page.run("return state.predicted"), 120)
        page.open("review")
        until(lambda: page.shown(".row img"))
        assert "images" in page.text(".basis ~ *, .actions .note")
        item = page.run("return document.querySelector('.row .note').textContent")
        others = [name for name in colours if name not in page.text(".row b")]
        page.press(str(page.texts("#classes .name").index(others[0]) + 1))
        assert [item, others[0]] in rows(session.answers.path)
        page.open("grid")
        groups = page.run("return [...document.querySelector('select').options].map((one) => one.value)")
        groups = [group for group in groups if group.startswith("group:")]
        page.run(  # faster than the server answers: the last one counts
            "const box = document.querySelector('select'); for (const value of arguments[0]) {"
            " box.value = value; box.dispatchEvent(new Event('change')); }",
            groups,
        )
        label = groups[-1].removeprefix("group:")
        until(lambda: page.text("button.main").endswith(f" are {label} Enter"))
        before, count = rows(session.answers.path), int(page.text("button.main").split()[0])
        assert count == len(page.texts(".tile"))
        page.press("\ue007")
        added = rows(session.answers.path)[len(before) :]
        assert [given for _, given in added] == count * [label]
        assert page.complaints() == []
        driver.get("about:blank")
    again = open_session()  # a page that is started later finds run and predictions
    assert again.state()["predicted"]
    again.training.stop()


def test_wrong_labels_and_copies_are_shown_with_what_speaks_against_them(driver, found):
    found.answer({2: "blue", 6: "red", 9: "blue"}, "grid", "tab")
    with served(found) as address:
        page = Page(driver, address)
        page.open("review")
        page.run("const box = document.querySelector('select'); box.value = 'labels'")
        page.run("document.querySelector('select').dispatchEvent(new Event('change'))")
        until(lambda: len(page.texts(".row")) == 3)
        error, first, second = page.texts(".row b")
        assert error == "red; labelled blue; doubt 0.90"
        assert first == "labelled red; a copy of it has another label"
        assert second == "labelled blue; a copy of it has another label"
        assert page.texts(".row .basis li")[-2:] == ["copy: blue", "copy: red"]
        assert not any(word in text for text in page.texts(".row") for word in ("null", "NaN", "undefined"))
        page.press("\ue007")  # Enter takes what is suggested, and for copies nothing
        page.press("\ue007")
        assert found.answers.classes() == {"red": 2, "blue": 1}
        assert page.complaints() == []
        driver.get("about:blank")


HOLD = """
const usual = window.fetch;
window.fetch = async (...asked) => {
  const answer = await usual(...asked);
  if (String(asked[0]).includes(arguments[0])) await new Promise((goOn) => { window.goOn = goOn; });
  return answer;
};
"""
CHOOSE = """
const box = document.querySelector('select');
box.value = arguments[0];
box.dispatchEvent(new Event('change'));
"""


@pytest.mark.parametrize(
    ("view", "held", "late", "wanted", "shown"),
    [("review", "what=labels", "labels", "doubt", ".row"), ("grid", "show=skipped", "skipped", "all", ".tile")],
    ids=["review", "grid"],
)
def test_an_answer_that_comes_late_does_not_replace_what_was_asked_for_since(
    driver, found, view, held, late, wanted, shown
):
    found.answer({2: "blue", 6: "red", 9: "blue"}, "grid", "tab")
    with served(found) as address:
        page = Page(driver, address)
        page.open(view)
        page.run(CHOOSE, wanted)
        until(lambda: page.texts(shown))
        expected = page.texts(shown)
        page.run(HOLD, held)
        page.run(CHOOSE, late)
        until(lambda: page.run("return Boolean(window.goOn)"))
        page.run(CHOOSE, wanted)
        until(lambda: page.texts(shown) == expected)
        page.run("window.goOn()")
        time.sleep(0.3)  # time enough to go wrong
        assert page.texts(shown) == expected
        assert page.run("return document.querySelector('select').value") == wanted
        assert page.complaints() == []
        driver.get("about:blank")


@pytest.mark.slow
def test_images_of_all_kinds_are_asked_first_after_a_training_without_labels(photos, driver, open_session):
    session = open_session()
    with served(session) as address:
        page = Page(driver, address)
        page.open("train")
        page.run("document.getElementById('choose-minutes').value = 0.05")
        page.click("#choose")
        until(lambda: "Training without labels" in page.text(".train"), 20)
        until(lambda: page.run("return state.suggested") > 0, 240)
        assert "Finished" in page.text(".train")
        page.open("label")
        until(lambda: "suggested: " in page.text(".about"), 20)
        assert page.complaints() == []
