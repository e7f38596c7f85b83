"""Language models as judges of what went wrong: over the OpenAI protocol, or in this process.

A judge's shares are not a result until they are compared with labels that are known to be right
(papo.analysis.shares does that); a report says so where it was not done.
"""

from papo.analysis.judge.local import LocalJudge
from papo.analysis.judge.remote import RemoteJudge

__all__ = ["LocalJudge", "RemoteJudge"]
