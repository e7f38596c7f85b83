"""Analysis: finished runs in; what they misread, how they differ, and pages to look at, out.

Nothing is imported here: a page of a run needs no torch, and a judge's model does.
"""
