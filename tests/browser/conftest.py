"""Fixtures of the tests in a browser.

The fixture `browse` looks at the console and at the requests of each test.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

CHROMIUM = Path("/usr/bin/chromium")
DRIVER = Path("/usr/bin/chromedriver")
OPTIONS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    # A microphone that beeps, and may be listened to.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """One Chromium for all tests, with an empty profile."""
    for path in (CHROMIUM, DRIVER):
        if not path.exists():
            pytest.skip(f"no {path}: apt install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for option in OPTIONS:
        options.add_argument(option)
    profile = tmp_path_factory.mktemp("profile")
    options.add_argument(f"--user-data-dir={profile}")
    logs = {"browser": "ALL", "performance": "ALL"}
    options.set_capability("goog:loggingPrefs", logs)
    service = webdriver.ChromeService(str(DRIVER))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(30)
    yield driver
    driver.quit()


def requests_of(driver):
    """Addresses requested since the last call, without data URIs."""
    messages = (
        json.loads(entry["message"])["message"]
        for entry in driver.get_log("performance")
    )
    return [
        message["params"]["request"]["url"][:200]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


@pytest.fixture
def browse(chromium):
    """Opens pages; none may log errors or send requests to the outside.

    A page is a file, or the address of a server on this machine.
    """

    def open_page(path, width=1280, height=900, dark=False):
        chromium.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {
                "width": width,
                "height": height,
                "deviceScaleFactor": 1,
                "mobile": width < 600,
            },
        )
        scheme = "dark" if dark else "light"
        feature = {"name": "prefers-color-scheme", "value": scheme}
        chromium.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [feature]}
        )
        is_served = isinstance(path, str)
        folders.add(path if is_served else path.parent.as_uri())
        chromium.get(path if is_served else path.as_uri())
        return chromium

    folders = set()
    chromium.get("about:blank")
    requests_of(chromium)
    chromium.get_log("browser")
    yield SimpleNamespace(open=open_page, driver=chromium)
    assert chromium.get_log("browser") == []
    inside = ("data:", "about:", *folders, *(f"blob:{x}" for x in folders))
    outside = [
        url for url in requests_of(chromium) if not url.startswith(inside)
    ]
    assert outside == []
