from analysis.conftest import browser  # noqa: F401
