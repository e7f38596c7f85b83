"""The methods that followed PAPO, a file each: credits, terms and views; conf/objective has their settings.

docs/methods.md has a row for each, with its cost in passes; below the formula, where paper and code differ, what is done here.
"""

from papo.methods.cgpo import CGPO
from papo.methods.cppo import ViewContrast
from papo.methods.evidence_rl import EvidenceRL
from papo.methods.papo_margin import ViewMargin
from papo.methods.pepo import PEPO
from papo.methods.perceval import Perceval
from papo.methods.pgpo import PGPO
from papo.methods.pivot import PIVOT
from papo.methods.r1_sharevl import ShareGRPO
from papo.methods.tor import ToR
from papo.methods.tpae import TPAE
from papo.methods.vepo import VEPO
from papo.methods.vgpo import VGPO
from papo.methods.vppo import VPPO

__all__ = [
    "CGPO",
    "PEPO",
    "PGPO",
    "PIVOT",
    "TPAE",
    "VEPO",
    "VGPO",
    "VPPO",
    "EvidenceRL",
    "Perceval",
    "ShareGRPO",
    "ToR",
    "ViewContrast",
    "ViewMargin",
]
