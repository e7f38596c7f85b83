"""python scripts/export_policy.py CHECKPOINT OUTPUT: a trained policy as a Hugging Face folder.

CHECKPOINT is a file under RUN_DIR/checkpoints/, or RUN_DIR itself for its newest one. OUTPUT then
loads with AutoModelForImageTextToText.from_pretrained and AutoTokenizer / Qwen2VLImageProcessor.
"""

import argparse
import sys
from pathlib import Path

import torch
import transformers
from omegaconf import OmegaConf

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from front_door import instantiate
from papo.training import load_trained_policy, newest_checkpoint


def export(checkpoint: Path, output: Path) -> None:
    """Writes the policy of a checkpoint to a folder.

    Raises:
        FileNotFoundError: no such checkpoint, or not inside a run folder.
        ValueError: `output` is not empty, or the frozen weights are not those of the run.
    """
    if checkpoint.is_dir():
        checkpoint = newest_checkpoint(checkpoint / "checkpoints") or checkpoint / "checkpoints"
    run_dir = checkpoint.parent.parent
    if not checkpoint.is_file() or not (run_dir / "config.yaml").is_file():
        raise FileNotFoundError(f"{checkpoint} is no checkpoint inside a run folder")
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output} is not empty; choose another folder")
    policy = instantiate(OmegaConf.load(run_dir / "config.yaml").model)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    load_trained_policy(policy, state)
    policy.save_pretrained(output)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, or a run folder")
    parser.add_argument("output", type=Path, help="the folder to write")
    arguments = parser.parse_args()
    transformers.logging.disable_progress_bar()
    try:
        export(arguments.checkpoint, arguments.output)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
