"""python scripts/export_policy.py CHECKPOINT OUTPUT: a trained policy as a Hugging Face folder.

CHECKPOINT is a file under RUN_DIR/checkpoints/, or RUN_DIR itself for its newest one. OUTPUT then
loads with AutoModelForImageTextToText.from_pretrained and AutoTokenizer / Qwen2VLImageProcessor.
"""

import argparse
import sys
from pathlib import Path

import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papo.commands.policy_source import (
    PolicySource,
    check_policy,
    folder_model,
    load_policy,
    trained_checkpoint,
)


def export(checkpoint: Path, output: Path, *, trust_remote_code: bool = False) -> None:
    """Writes the policy of a checkpoint to a folder.

    Args:
        checkpoint: a file in a run's checkpoints/, or the run.
        output: must be empty, or not there.
        trust_remote_code: run code that comes with the model; never what the run's own files say.

    Raises:
        FileNotFoundError: no such checkpoint, or not inside a run folder.
        ValueError: `output` is not empty, the checkpoint is damaged, or the frozen weights are not those of the run.
    """
    trained = trained_checkpoint(checkpoint)
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output} is not empty; choose another folder")
    model = folder_model(
        trained.parent.parent, {"trust_remote_code": True} if trust_remote_code else {}
    )
    source = PolicySource(model=model, trained=trained, location=str(trained))
    check_policy(source)
    load_policy(source).save_pretrained(output)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, or a run folder")
    parser.add_argument("output", type=Path, help="the folder to write")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code that comes with the model"
    )
    arguments = parser.parse_args()
    transformers.logging.disable_progress_bar()
    try:
        export(
            arguments.checkpoint,
            arguments.output,
            trust_remote_code=arguments.trust_remote_code,
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
