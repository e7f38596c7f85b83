"""Ways of hiding part of an image, one file each, and measures of how much was hidden.

Each mask is an `ImageMask` (papo.types): it draws only from the generator it is handed and returns
patches; it never changes the group it reads. Not here: when to mask and how the generator is seeded
(papo.training).
"""

from papo.masking.blank import BlankMask
from papo.masking.coverage import black_token_fraction
from papo.masking.dino_saliency import DinoSaliency
from papo.masking.evidence import EvidenceControlMask, EvidenceMask
from papo.masking.noise import GaussianNoiseMask
from papo.masking.preflight import check_mask, require_pictures
from papo.masking.random_patches import MASK_GRIDS, RandomPatchMask
from papo.masking.semantic import Saliency, SemanticMask

__all__ = [
    "MASK_GRIDS",
    "BlankMask",
    "DinoSaliency",
    "EvidenceControlMask",
    "EvidenceMask",
    "GaussianNoiseMask",
    "RandomPatchMask",
    "Saliency",
    "SemanticMask",
    "black_token_fraction",
    "check_mask",
    "require_pictures",
]
