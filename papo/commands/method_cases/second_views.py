"""Second ways to show a picture, from draws that the cases hold."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from papo.masking import (
    BlankMask,
    GaussianNoiseMask,
    OcclusionMask,
    RandomPatchMask,
    ZoomCropMask,
)


def outputs(case: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "patch_mask": patch_mask,
        "gaussian_noise": gaussian_noise,
        "full_grey": full_grey,
        "zoom_crop": zoom_crop,
        "occlusion": occlusion,
    }[case["kind"]](case["config"], case["inputs"])


def picture(pixels: Any) -> Image.Image:
    return Image.fromarray(np.array(pixels, dtype=np.uint8))


def pixels_of(image: Image.Image) -> list[Any]:
    return np.asarray(image).tolist()


def patch_mask(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    side, width, height = config["patch"], config["width"], config["height"]
    mask = RandomPatchMask(ratio=config["probability"], grid="raw", raw_square_pixels=side, seed=0)
    shape = (-(-height // side), -(-width // side))
    hidden = torch.tensor(inputs["draws_row_major"]).reshape(shape) < config["probability"]
    white = Image.new(config["mode"], (width, height), "white")
    painted = np.asarray(mask.blacken(white, hidden)).reshape(height, width, -1)
    return {
        "black_cells": hidden.int().tolist(),
        "black_pixels": int((painted == 0).all(axis=2).sum()),
        "other_pixels_unchanged": bool(((painted == 0) | (painted == 255)).all()),
    }


def gaussian_noise(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    mask = GaussianNoiseMask(noise_std=float(config["std"]), seed=0, rounding="down")
    levels, noise = (torch.tensor(inputs[name]).float() for name in ("pixels", "noise"))
    return {"pixels": pixels_of(mask.with_noise(levels, noise))}


def full_grey(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    grey = Image.new(
        "RGB", (inputs["width"], inputs["height"]), (BlankMask(level=config["value"]).level,) * 3
    )
    return {"pixels": pixels_of(grey)}


def zoom_crop(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    image = picture(inputs["pixels"])
    width, height = ZoomCropMask.extent(image, inputs["factor"])
    left, top = inputs["left"], inputs["top"]
    enlarged = ZoomCropMask.enlarged(image, (left, top, left + width, top + height))
    return {"crop_width": width, "crop_height": height, "pixels": pixels_of(enlarged)}


def occlusion(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    image = Image.new("RGB", (config["width"], config["height"]))
    covered = torch.zeros(config["height"], config["width"])
    for one in inputs["rectangles"]:
        width, height = OcclusionMask.extent(image, one["width_fraction"], one["height_fraction"])
        covered[one["y"] : one["y"] + height, one["x"] : one["x"] + width] = 1
    return {"covered": covered}
