"""Analysis: finished runs in; what they misread, how they differ, and pages to look at, out."""
