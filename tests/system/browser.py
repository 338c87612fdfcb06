"""A headless Chromium over its debugging pipe: what a page does when it is really opened.

No package is needed: the browser reads commands from descriptor 3 and answers on 4, each ended by a
zero byte.
"""
import json
import os
import shutil
import subprocess
import tempfile

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"]


def find():
    for name in NAMES:
        path = shutil.which(name)
        if path:
            return path
    return None


class Browser:
    def __init__(self, path):
        self.folder = tempfile.TemporaryDirectory()
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()

        def place():
            # The two ends may themselves have the numbers 3 and 4.
            low, high = os.dup(to_read), os.dup(from_write)
            os.dup2(low, 3)
            os.dup2(high, 4)

        self.process = subprocess.Popen(
            [path, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
             "--no-first-run", "--disable-background-networking", "--disable-component-update",
             "--disable-extensions", "--disable-dev-shm-usage",
             f"--user-data-dir={self.folder.name}", "about:blank"],
            close_fds=False, preexec_fn=place, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        os.close(to_read)
        os.close(from_write)
        self.to, self.answers = os.fdopen(to_write, "wb"), os.fdopen(from_read, "rb")
        self.number, self.rest, self.events, self.session = 0, b"", [], None

    def close(self):
        try:
            self.call("Browser.close", session=False)
        except (OSError, EOFError):
            pass
        self.to.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.answers.close()
        try:
            self.folder.cleanup()
        except OSError:
            pass  # a helper of the browser may still write there

    def receive(self):
        while b"\0" not in self.rest:
            block = os.read(self.answers.fileno(), 1 << 20)
            if not block:
                raise EOFError("the browser is gone")
            self.rest += block
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, session=True, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if session and self.session:
            message["sessionId"] = self.session
        self.to.write(json.dumps(message).encode() + b"\0")
        self.to.flush()
        while True:
            answer = self.receive()
            if answer.get("id") == message["id"]:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def open(self, url, media=None):
        """Load a page in a new tab and wait for it; its events are kept in self.events."""
        self.session, self.events = None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target,
                                 flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Performance.setTimeDomain", timeDomain="threadTicks")
        self.call("Performance.enable")
        if media:
            self.call("Emulation.setEmulatedMedia", **media)
        self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.receive())

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                           awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def work_s(self):
        """The processor time that the page has taken so far: a busy machine does not count."""
        metrics = self.call("Performance.getMetrics")["metrics"]
        return {row["name"]: row["value"] for row in metrics}["ThreadTime"]

    def problems(self):
        """Script errors, refused content, and whatever is asked for beside the page itself."""
        found, requests = [], []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(f"exception: {params['exceptionDetails'].get('text')}")
            elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(f"log: {params['entry']['text']}")
            elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
                found.append("console.error")
            elif method == "Network.requestWillBeSent":
                requests.append(params["request"]["url"])
        return found, requests
