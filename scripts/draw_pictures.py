"""Draws the pictures of the README into docs/figures: python scripts/draw_pictures.py [--run RUN_DIR] [--seed 1]

mask.png: problems of PerceptionLab as the policy sees them, and with the mask of the configuration. With --run also
run_page.png: the top of RUN_DIR/report.html in Chromium, 1280 pixels wide.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# A clone that is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hydra import compose, initialize_config_dir
from PIL import Image

from papo.commands import building, front_door

FIGURES = Path(__file__).resolve().parents[1] / "docs" / "figures"
NUM_PROBLEMS, SCALE, GAP = 4, 3, 8
PAGE_SIZE = (1280, 860)
NUM_COLOURS = 96
"""Of the page's picture: fewer keep the file small."""


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, metavar="RUN_DIR", help="whose page is drawn as well")
    parser.add_argument("--seed", type=int, default=1, help="of problems and masks")
    arguments = parser.parse_args()
    masked_problems(arguments.seed).save(FIGURES / "mask.png", optimize=True)
    print("Wrote", FIGURES / "mask.png")
    if arguments.run is not None:
        try:
            page(arguments.run / "report.html").save(FIGURES / "run_page.png", optimize=True)
        except OSError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print("Wrote", FIGURES / "run_page.png")
    return 0


def masked_problems(seed: int) -> Image.Image:
    """Returns pictures of problems in one row, and below each what is left of it under the mask."""
    from papo.types import derive_seed
    from papo.views import hide

    with initialize_config_dir(config_dir=front_door.CONFIG_FOLDER, version_base="1.3"):
        config = compose("train", overrides=[f"seed={seed}"])
    policy, mask = building.instantiate(config.model), building.instantiate(config.masking)
    problems = building.instantiate(config.data)
    groups = policy.encode([problems[i] for i in range(NUM_PROBLEMS)])
    rows = [
        groups,
        [
            hide(group, mask, policy, seed=derive_seed(seed, "mask", i))
            for i, group in enumerate(groups)
        ],
    ]
    pictures = [[policy.pictures(one.patches, one.pictures)[0] for one in row] for row in rows]
    side = SCALE * pictures[0][0].width
    step = side + GAP
    sheet = Image.new("RGB", (NUM_PROBLEMS * step - GAP, 2 * step - GAP), "white")
    for y, row in enumerate(pictures):
        for x, picture in enumerate(row):
            large = picture.resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(large, (x * step, y * step))
    return sheet


def page(file: Path) -> Image.Image:
    """Returns the top of a page as Chromium shows it.

    Raises:
        OSError: no page, no Chromium, or it drew nothing.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is no page: python scripts/report_run.py {file.parent} writes it"
        )
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        raise FileNotFoundError(
            f"the page is drawn by one of {', '.join(names)}; none is installed"
        )
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "page.png"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        size = f"--window-size={PAGE_SIZE[0]},{PAGE_SIZE[1]}"
        command = [browser, *options, size, f"--screenshot={drawn}", file.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True)
        with Image.open(drawn) as picture:
            return picture.convert("RGB").quantize(NUM_COLOURS)


if __name__ == "__main__":
    sys.exit(main())
