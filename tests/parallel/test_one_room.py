"""Only papo.parallel knows torch.distributed: the rest of the house asks Ranks."""

import ast
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def distributed_imports(file):
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{one.name}" for one in node.names]
        elif isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        else:
            continue
        yield from (name for name in names if name.startswith("torch.distributed"))


def test_nothing_else_imports_it():
    files = [*REPOSITORY.glob("*.py"), *(REPOSITORY / "papo").rglob("*.py")]
    users = {file for file in files if any(distributed_imports(file))}
    room = REPOSITORY / "papo" / "parallel"
    assert users
    assert users <= set(room.glob("*.py"))
