"""The methods that followed PAPO, a file each: credits, terms and views; conf/objective has their settings.

docs/methods.md has a row for each: formula, cost in passes, where paper and code differ, what is done here.
"""

from papo.methods.vppo import VPPO

__all__ = ["VPPO"]
