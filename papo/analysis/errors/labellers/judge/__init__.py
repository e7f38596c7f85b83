"""Language models as judges of what went wrong: over the OpenAI protocol, or in this process.

A judge's shares are not a result until they are compared with labels that are known to be right
(papo.analysis.errors.shares does that); a report says so where it was not done.
"""

from papo.analysis.errors.labellers.judge.local import LocalJudge
from papo.analysis.errors.labellers.judge.remote import RemoteJudge

__all__ = ["LocalJudge", "RemoteJudge"]
