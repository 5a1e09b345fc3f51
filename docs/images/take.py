"""Take the pictures of the documentation, in Chromium, of a running `make ui`.

.venv/bin/python docs/images/take.py http://127.0.0.1:3000 .later-demo/lake/organic_paid_report/report.html
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

URL, REPORT = sys.argv[1:]
PICTURES = {
    "report": (Path(REPORT).resolve().as_uri(), 1000, 690),
    "assets": (f"{URL}/assets/later/posts?view=lineage", 1400, 640),
    "checks": (f"{URL}/assets/later/posts_published?view=checks", 1100, 560),
}

with sync_playwright() as playwright:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    page = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]).new_page()
    for name, (address, width, height) in PICTURES.items():
        page.set_viewport_size({"width": width, "height": height})
        page.goto(address)
        page.wait_for_timeout(8_000)  # the UI shows statuses one after the other
        page.screenshot(path=Path(__file__).with_name(f"{name}.png"))
