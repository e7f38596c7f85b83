"""Noise as a diffusion process adds it, a fixed step of it or less and less over a run (NoisyRollout, DVRP)."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from papo.masking.picture import PictureMask
from papo.types import ImageMask

NUM_NOISE_STEPS = 1000

# Of a share of the run and a steepness; each begins at about 1.
_DECAYS: dict[str, Callable[[float, float, float], float]] = {
    "sigmoid": lambda progress, steepness, middle: 1 - _sigmoid(steepness * (progress - middle)),
    "power": lambda progress, steepness, middle: 1 - progress**steepness,
    "exponential": lambda progress, steepness, middle: 1 - steepness ** (1 - progress),
    "none": lambda progress, steepness, middle: 1.0,
}


def diffusion_coefficients(noise_step: int) -> tuple[float, float]:
    """Returns what the picture and the noise are multiplied by: sqrt(abar_t), sqrt(1 - abar_t).

    abar_t is the product of 1 - beta_s, s = 0 to t, with betas from 1e-5 to 5e-3 on a sigmoid over 1000 steps
    (NUS-TRAIL/NoisyRollout@09347dd, verl/utils/image_aug.py). Step 0 is not the identity.
    """
    betas = torch.linspace(-6, 6, NUM_NOISE_STEPS).sigmoid() * (5e-3 - 1e-5) + 1e-5
    kept = (1 - betas).cumprod(0)[noise_step]
    return float(kept.sqrt()), float((1 - kept).sqrt())


class DiffusionNoiseMask(PictureMask):
    """x' = sqrt(abar_t) x + sqrt(1 - abar_t) noise, x in [0, 1], cut at black and white, levels rounded down.

    As NoisyRollout's code has it: x is not centred, so that much noise darkens as well.

    Args:
        noise_step: t, 0 to 999.
        seed: as of PictureMask.

    Raises:
        ValueError: there is no such step.
    """

    def __init__(self, *, noise_step: int, seed: int) -> None:
        super().__init__(seed=seed)
        if not 0 <= noise_step < NUM_NOISE_STEPS:
            raise ValueError(
                f"noise_step is a step of the diffusion, 0 to {NUM_NOISE_STEPS - 1}; got {noise_step}"
            )
        self.noise_step = noise_step

    def repaint(self, image: Image.Image, generator: torch.Generator) -> Image.Image:
        shape = (3, image.height, image.width)
        noise = torch.randn(shape, generator=generator, device=generator.device).cpu()
        return self.with_noise(image, noise)

    def with_noise(
        self, image: Image.Image, noise: Float[Tensor, "channel row column"]
    ) -> Image.Image:
        """Returns the picture with this noise, of deviation 1."""
        signal, deviation = diffusion_coefficients(self.noise_step)
        levels = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1) / 255
        noisy = (signal * levels + deviation * noise).clamp(0, 1) * 255
        return Image.fromarray(noisy.to(torch.uint8).permute(1, 2, 0).contiguous().numpy())


class AnnealedDiffusionNoise:
    """Diffusion noise that becomes less over the run; a view hands out the mask of its moment.

    The noise step is `initial_step` times a decay of the progress s, 0 to 1, rounded down:

    * "sigmoid": 1 - sigmoid(steepness (s - middle)); DVRP: 500, 10, 0.5; NoisyRollout on Geometry3K: 500, 30, 2/3.
    * "power": 1 - s^steepness; 1 is a line.
    * "exponential": 1 - steepness^(1 - s), steepness in (0, 1).
    * "none": no decay.

    Args:
        initial_step: t that the run begins near.
        decay: its form.
        steepness: as above.
        middle: the progress at which half is left; read by "sigmoid" alone.
        seed: as of PictureMask.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(
        self, *, initial_step: int, decay: str, steepness: float, middle: float, seed: int
    ) -> None:
        DiffusionNoiseMask(noise_step=initial_step, seed=seed)
        if decay not in _DECAYS:
            raise ValueError(f"decay is one of {', '.join(_DECAYS)}; got {decay!r}")
        if not steepness > 0 or (decay == "exponential" and not steepness < 1):
            raise ValueError(
                f"steepness is above 0, and below 1 for decay=exponential; got {steepness}"
            )
        self.initial_step = initial_step
        self.decay = decay
        self.steepness = float(steepness)
        self.middle = float(middle)
        self.seed = seed

    def left(self, progress: float) -> float:
        """The share of the noise that is left, 0 to 1."""
        return _DECAYS[self.decay](progress, self.steepness, self.middle)

    def at(self, progress: float) -> ImageMask:
        """Returns the mask at a share of the run that is done, 0 to 1."""
        step = int(self.initial_step * self.left(progress))
        return DiffusionNoiseMask(noise_step=step, seed=self.seed)


def _sigmoid(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float64).sigmoid())
