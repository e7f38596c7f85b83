"""A headless Chromium, driven over its DevTools pipe; needs nothing but the browser.

The pipe carries JSON messages that end in a zero byte: https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
DESKTOP, PHONE = (1280, 900), (360, 740)
DEADLINE_SECONDS = 60

MIN_CONTRAST = 4.5
"""Of text: WCAG 2.2, success criterion 1.4.3."""

_CONTRAST = """
(() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const over = (top, below) => top.slice(0, 3).map((c, i) => c * (top[3] ?? 1) + below[i] * (1 - (top[3] ?? 1)));
  const background = node => {
    const layers = [];
    for (let n = node; n; n = n.parentElement) layers.push(parts(getComputedStyle(n).backgroundColor));
    return layers.reduceRight((below, top) => over(top, below), [255, 255, 255]);
  };
  const luminance = rgb => rgb.map(c => c / 255).map(c => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  let worst = [99, ''];
  for (const node of document.querySelectorAll('p, td, th, caption, a, li, figcaption, summary, .key span, h1, h2, h3')) {
    if (!node.textContent.trim()) continue;
    const [a, b] = [luminance(parts(getComputedStyle(node).color)), luminance(background(node))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < worst[0]) worst = [ratio, node.outerHTML.slice(0, 80)];
  }
  return worst;
})()
"""

_FAULTS = """
(() => {
  const faults = [];
  const first = (what, selector, wrong) => {
    const found = [...document.querySelectorAll(selector)].filter(wrong);
    if (found.length) faults.push(`${found.length} ${what}: ${found[0].outerHTML.slice(0, 120)}`);
  };
  first('pictures that show nothing', 'img', i => !i.naturalWidth);
  first('pictures without words', 'img', i => !i.alt);
  first('tables without a caption', 'table', t => !t.caption);
  first('drawings without words', 'svg', s => !s.ariaLabel && !s.ariaHidden);
  const levels = [...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1]);
  if (levels[0] !== 1 || levels.some((level, i) => i && level > levels[i - 1] + 1))
    faults.push(`headings skip a level: ${levels}`);
  if (!document.documentElement.lang) faults.push('no language');
  return faults;
})()
"""


def find_chromium() -> str | None:
    """Returns the path of a Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """One browser process; close it."""

    def __init__(self, executable: str) -> None:
        self._profile = tempfile.mkdtemp(prefix="papo-chromium-")
        to_browser, self._write = _pipe()
        self._read, from_browser = _pipe()
        arguments = [
            executable,
            "--headless=new",
            "--remote-debugging-pipe",
            f"--user-data-dir={self._profile}",
            *("--no-first-run", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--disable-background-networking", "--disable-extensions", "--disable-sync"),
            "--hide-scrollbars",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            "about:blank",
        ]
        devnull = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        self._process = os.posix_spawn(
            executable,
            arguments,
            {**os.environ, "HOME": self._profile},
            file_actions=[
                *devnull,
                (os.POSIX_SPAWN_DUP2, to_browser, 3),
                (os.POSIX_SPAWN_DUP2, from_browser, 4),
            ],
            setpgroup=0,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._counter = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Returns the answer to one command; events that come before it are kept in `events`."""
        self._counter += 1
        number = self._counter
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            answer = self._next_message(deadline)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def listen(self, deadline: float) -> None:
        """Waits for one more event."""
        self.events.append(self._next_message(deadline))

    def _next_message(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"Chromium said nothing for {DEADLINE_SECONDS} s")
            piece = os.read(self._read, 1 << 20)
            if not piece:
                raise EOFError("Chromium went away")
            self._buffer += piece
        line, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(line)

    def open(self, file: Path, *, size: tuple[int, int] = DESKTOP) -> "Tab":
        """Returns a new tab that has loaded a file."""
        return Tab(self, file, size)

    def close(self) -> None:
        # The browser starts helpers in its own process group, so the group ends with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._read)
        os.close(self._write)
        shutil.rmtree(self._profile, ignore_errors=True)


class Tab:
    """One page, with everything it said and asked for since it was opened."""

    def __init__(self, browser: Chromium, file: Path, size: tuple[int, int]) -> None:
        self.browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(size)
        self.url = file.resolve().as_uri()
        self._load("Page.navigate", url=self.url)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.call(method, self._session, **parameters)

    def resize(self, size: tuple[int, int]) -> None:
        width, height = size
        self._width = width
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def dark(self) -> None:
        features = [{"name": "prefers-color-scheme", "value": "dark"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def reload(self) -> None:
        self._load("Page.reload")

    def _load(self, method: str, **parameters: Any) -> None:
        """Waits for the new page's own load event: until then the old one still answers."""
        loaded_before = self._count("Page.loadEventFired")
        self.call(method, **parameters)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self._count("Page.loadEventFired") == loaded_before:
            self.browser.listen(deadline)

    def _count(self, method: str) -> int:
        return sum(event["method"] == method for event in self._events_so_far())

    def run(self, expression: str) -> Any:
        """Returns the value of a JavaScript expression."""
        result = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Returns once the expression is true."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            if self.run(expression):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(expression)
            time.sleep(0.02)

    def press(self, *keys: str) -> None:
        """Presses keys one after another, as a keyboard would."""
        for key in keys:
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def download_to(self, folder: Path) -> None:
        self.browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def choose_file(self, selector: str, file: Path) -> None:
        """Puts a file into an <input type=file>."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def screenshot(self, file: Path) -> None:
        """Writes a picture of the whole page."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(picture))

    def scrolls_sideways(self) -> bool:
        # Not innerWidth: a phone zooms out until what is too wide fits.
        return self.run("document.documentElement.scrollWidth") > self._width

    def faults(self) -> list[str]:
        """What every page of the project is free of: it fits, needs nothing else, and can be read aloud."""
        faults = [*self.complaints(), *self.requests(), *self.run(_FAULTS)]
        if self.scrolls_sideways():
            faults.append(f"wider than {self._width} pixels")
        ratio, node = self.run(_CONTRAST)
        if ratio < MIN_CONTRAST:
            faults.append(f"contrast {ratio:.2f}: {node}")
        return faults

    def complaints(self) -> list[str]:
        """What the page wrote to the console or was forbidden, exceptions included."""
        return [
            json.dumps(event["params"])
            for event in self._own_events()
            if event["method"]
            in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        ]

    def requests(self) -> list[str]:
        """Addresses it asked for, other than itself and what it holds."""
        urls = [
            event["params"]["request"]["url"]
            for event in self._own_events()
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if url != self.url and not url.startswith(("data:", "blob:"))]

    def _own_events(self) -> list[dict[str, Any]]:
        # One more exchange brings in what was said until now.
        self.run("1")
        return self._events_so_far()

    def _events_so_far(self) -> list[dict[str, Any]]:
        return [event for event in self.browser.events if event.get("sessionId") == self._session]


def _pipe() -> tuple[int, int]:
    """A pipe whose numbers stay clear of 3 and 4, which the browser's ends must get."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]
