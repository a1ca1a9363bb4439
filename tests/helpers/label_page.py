"""A browser and the label page in it, for tests and for screenshots."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WAITING = 60.0
"""Seconds until something that must happen has not, on a busy machine."""


def missing() -> str | None:
    """Say what a test in a browser lacks here; None if nothing."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed (pip install selenium)"
    lacking = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"no {' and no '.join(lacking)} here (Debian: apt-get install chromium chromium-driver)" if lacking else None


@contextmanager
def chromium(folder: Path, width: int = 1280, height: int = 860) -> Iterator[Any]:
    """Start a browser without a window, whose files are in a folder, and that asks nothing of the network."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = shutil.which("chromium")
    flags = ["headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update"]
    flags += ["disable-sync", "no-first-run", "disable-dev-shm-usage", "hide-scrollbars", "force-color-profile=srgb"]
    for flag in (*flags, f"user-data-dir={folder}", f"window-size={width},{height}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


@contextmanager
def served(session: Any) -> Iterator[str]:
    """Serve a session from a thread of this process; yields the page's address."""
    import uvicorn

    from tapetum.labelling.server import make_app

    config = uvicorn.Config(make_app(session, "token"), port=0, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/token/"
    finally:
        server.should_exit = True
        thread.join()


def until(condition: Callable[[], Any], seconds: float = WAITING) -> Any:
    """Wait for something and return it."""
    end, pause = time.monotonic() + seconds, 0.01
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(pause)
        pause = min(0.5, 1.5 * pause)  # asking takes time from what is waited for
    return found


class Page:
    """What somebody sees and does on the page in one tab."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        driver.get("about:blank")
        self.complaints()  # of an earlier page, whose server may have been killed
        driver.get(address)
        self.ready("label")

    def ready(self, view: str) -> None:
        until(lambda: self.run("return document.body.dataset.ready") == view)

    def run(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(script, *given)

    def press(self, *keys: str) -> None:
        """Type on the keyboard, whatever has the focus, one key after the other."""
        from selenium.webdriver import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()
            self.settled()

    def press_with_shift(self, key: str) -> None:
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.keys import Keys

        ActionChains(self.driver).key_down(Keys.SHIFT).send_keys(key).key_up(Keys.SHIFT).perform()
        self.settled()

    def settled(self) -> None:
        """Wait until no answer is on its way."""
        until(lambda: self.run("return !busy"))

    def open(self, view: str) -> None:
        """Go to a view by its key."""
        self.run("delete document.body.dataset.ready")
        self.press(view[0])
        self.ready(view)

    def text(self, selector: str) -> str:
        return self.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector)

    def texts(self, selector: str) -> list[str]:
        return self.run("return [...document.querySelectorAll(arguments[0])].map(one => one.textContent)", selector)

    def click(self, selector: str, number: int = 0) -> None:
        from selenium.webdriver.common.by import By

        self.driver.find_elements(By.CSS_SELECTOR, selector)[number].click()
        self.settled()

    def shown(self, selector: str = ".picture img") -> str:
        """The file name under which an image is shown, once it is loaded."""
        script = "const image = document.querySelector(arguments[0]); return image?.naturalWidth ? image.alt : ''"
        return until(lambda: self.run(script, selector))

    def complaints(self) -> list[str]:
        """What the browser's console holds against the page."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def pool_of(root: Path) -> Any:
    """The images of a folder, read by Pillow alone: torch takes seconds to load."""
    from PIL import Image

    from tapetum.labelling.pictures import Pool

    def opened(name: str, side: int) -> Image.Image:
        try:
            with Image.open(root / name) as image:
                image.draft("RGB", (side, side))
                return image.convert("RGB")
        except OSError as error:
            raise ValueError(f"image {name} cannot be read ({error})") from error

    paths = (Path(folder) / name for folder, _, files in os.walk(root) for name in files)
    names = sorted(path.relative_to(root).as_posix() for path in paths)
    return Pool(str(root), root, tuple(names), opened)


def main() -> None:
    """Serve the images of a folder: python label_page.py FOLDER LABELS.CSV."""
    from tapetum.labelling.server import serve
    from tapetum.labelling.session import Session

    session = Session(pool_of(Path(sys.argv[1]).resolve()), Path(sys.argv[2]), "ann")
    serve(session, tell=lambda address: print(address, flush=True))


if __name__ == "__main__":
    main()
