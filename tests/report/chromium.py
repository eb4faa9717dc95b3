"""The Chromium that tests of pages drive, and whether it starts: ``python tests/report/chromium.py``."""

from __future__ import annotations

import os
import shutil
import sys

SWITCHES = ("--no-sandbox", "--disable-gpu")


def found(driver) -> str | None:
    """The path of a Chromium, of this machine or else of those that ``playwright install`` fetches; None without."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    return driver.chromium.executable_path if os.path.exists(driver.chromium.executable_path) else None


def main() -> int:
    """Says which Chromium starts; 1 where none does."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        print(f"no browser: {error}")
        return 1
    with sync_playwright() as driver:
        path = found(driver)
        if path is None:
            print("no browser: there is no Chromium on this machine")
            return 1
        try:
            browser = driver.chromium.launch(executable_path=path, args=list(SWITCHES))
        except Error as error:
            print(f"no browser: {path} does not start: {error.message.splitlines()[0]}")
            return 1
        print(f"{path}, version {browser.version}")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
