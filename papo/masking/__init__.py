"""Ways of hiding part of an image, one file each, and measures of how much was hidden.

Each mask is an `ImageMask` (papo.types): it draws only from the generator it is handed and returns
patches; it never changes the group it reads. Not here: when to mask and how the generator is seeded
(papo.training).
"""

from papo.masking.blank import BlankMask
from papo.masking.coverage import black_token_fraction
from papo.masking.diffusion_noise import (
    AnnealedDiffusionNoise,
    DiffusionNoiseMask,
    diffusion_coefficients,
)
from papo.masking.dino_saliency import DinoSaliency
from papo.masking.evidence import EvidenceControlMask, EvidenceMask, NoRoom, has_evidence
from papo.masking.noise import GaussianNoiseMask, ProcessedNoiseMask
from papo.masking.picture import OneOf, PictureMask
from papo.masking.preflight import check_mask, require_pictures
from papo.masking.random_patches import MASK_GRIDS, RandomPatchMask
from papo.masking.rearranged import (
    ColourJitterMask,
    CropFillMask,
    OcclusionMask,
    PerspectiveMask,
    RotationMask,
    ZoomCropMask,
)
from papo.masking.semantic import Saliency, SemanticMask

__all__ = [
    "MASK_GRIDS",
    "AnnealedDiffusionNoise",
    "BlankMask",
    "ColourJitterMask",
    "CropFillMask",
    "DiffusionNoiseMask",
    "DinoSaliency",
    "EvidenceControlMask",
    "EvidenceMask",
    "GaussianNoiseMask",
    "NoRoom",
    "OcclusionMask",
    "OneOf",
    "PerspectiveMask",
    "PictureMask",
    "ProcessedNoiseMask",
    "RandomPatchMask",
    "RotationMask",
    "Saliency",
    "SemanticMask",
    "ZoomCropMask",
    "black_token_fraction",
    "check_mask",
    "diffusion_coefficients",
    "has_evidence",
    "require_pictures",
]
