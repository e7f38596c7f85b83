"""A browser for the pages."""

import pytest
from analysis.chromium import Chromium, find_chromium


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; without one the tests that need it are skipped."""
    executable = find_chromium()
    if executable is None:
        pytest.skip("no Chromium (Debian: apt-get install chromium); pages are not looked at")
    browser = Chromium(executable)
    yield browser
    browser.close()
