"""Run the demo, and take the pictures of the documentation of its report and its Dagster UI, in Chromium."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from playwright.sync_api import sync_playwright

DEMO, PORT = Path(".later-demo"), "3010"
URL = f"http://127.0.0.1:{PORT}"
REPORT = DEMO.resolve() / "lake" / "organic_paid_report" / "report.html"
PICTURES = {
    "report": (REPORT.as_uri(), 1400, 940),
    "assets": (f"{URL}/assets/later/posts?view=lineage", 1400, 640),
    "checks": (f"{URL}/assets/later/posts_published?view=checks", 1100, 560),
}
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def wait_for_ui(demo: subprocess.Popen[bytes]) -> None:
    while demo.poll() is None:
        try:
            urlopen(f"{URL}/server_info").close()
        except URLError:
            time.sleep(1)
        else:
            return
    sys.exit("The demo has ended: see above")


command = [sys.executable, "-m", "later_reporting_dagster.cli.main", "demo"]
demo = subprocess.Popen([*command, "--directory", DEMO, "--ui", "--ui-port", PORT])
try:
    wait_for_ui(demo)
    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, CHROMIUM)), None)
        page = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]).new_page()
        for name, (address, width, height) in PICTURES.items():
            page.set_viewport_size({"width": width, "height": height})
            page.goto(address)
            page.wait_for_timeout(8_000)  # the UI shows statuses one after the other
            page.screenshot(path=Path(__file__).with_name(f"{name}.png"))
finally:
    demo.terminate()
    demo.wait()
