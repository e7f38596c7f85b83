"""python scripts/export_policy.py CHECKPOINT OUTPUT: a trained policy as a Hugging Face folder with a model card.

CHECKPOINT is a file under RUN_DIR/checkpoints/, RUN_DIR itself for its newest one, or RUN_DIR/best. OUTPUT then
loads with AutoModelForImageTextToText.from_pretrained, AutoTokenizer and the image processor of its family.
"""

import sys
from pathlib import Path

# A clone that is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papo.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
