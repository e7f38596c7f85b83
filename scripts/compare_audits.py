"""Audits of several policies as one table: python scripts/compare_audits.py NAME=FOLDER NAME=FOLDER ...

FOLDERs are what evaluate.py audit=grounding wrote, on the same problems with the same settings. Prints Markdown: a row per
number (docs/grounding_audit.md), a column per policy, shares in per cent, 95 % intervals over problems.
"""

import argparse
import sys
from pathlib import Path

# A clone that is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papo.evaluation.compare.table_of_audits import audit_differences, audits_markdown, read_audit


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("audits", nargs="+", metavar="NAME=FOLDER", help="an audit")
    parser.add_argument(
        "--any-settings", action="store_true", help="allow audits that were not measured alike"
    )
    arguments = parser.parse_args()
    try:
        folders: dict[str, Path] = {}
        for argument in arguments.audits:
            name, equals, folder = argument.partition("=")
            if not (name and equals and folder) or name in folders:
                raise ValueError(
                    f"an audit is NAME=FOLDER, each with a name of its own; got {argument!r}"
                )
            folders[name] = Path(folder)
        audits = {name: read_audit(folder) for name, folder in folders.items()}
        different = audit_differences(folders)
        if different and not arguments.any_settings:
            raise ValueError(
                f"audits are compared on the same problems with the same settings; {different[0]}. Audit anew, or "
                "compare all the same with --any-settings."
            )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(audits_markdown(audits))
    for note in different:
        print(f"* not measured alike: {note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
