"""python scripts/compare_responses.py A B: responses of two evaluations to the same problems, side by side.

A and B are folders that evaluate.py wrote. Writes one self-contained HTML page: pairs that B fixed,
that it broke, and that both got wrong or right, drawn at random, with their counts. Where an
evaluation has probe=perception, every token is coloured by its perception KL.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papo.analysis.pages.response_pairs import response_pairs_page
from papo.storage.evaluated_run import read_evaluated_runs
from papo.storage.files import write_atomically


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("first", type=Path, help="an evaluation folder: what is compared with")
    parser.add_argument("second", type=Path, help="an evaluation folder: what is compared")
    parser.add_argument("--view", default="image", help="show another view's responses")
    parser.add_argument(
        "--count", type=int, default=4, help="pairs of a kind (default: %(default)s)"
    )
    parser.add_argument("--problem", metavar="ID", help="every pair of this problem instead")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--output", type=Path, help="file to write (default: B/responses.html)")
    arguments = parser.parse_args()
    output = arguments.output or arguments.second / "responses.html"
    try:
        runs = read_evaluated_runs(
            [arguments.first, arguments.second], view=arguments.view, require_finished=True
        )
        text = response_pairs_page(
            runs, count=arguments.count, seed=arguments.seed, problem_id=arguments.problem
        )
        write_atomically(output, text)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{output} ({len(text.encode()) / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
