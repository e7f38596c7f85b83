"""Checks what papo's functions and dataclasses annotate, shapes included, wherever a test calls them.

jaxtyping's own hook makes a check of every inner function each time the function around it is called, and binds names
to shapes where no shape is named: that was more than half of the CPU seconds of a test that trains. Here a check is
made once, when a function is called first: by jaxtyping where a shape is named, by beartype alone elsewhere. Inner
functions, none of which names a shape, are not checked.
"""

import ast
import hashlib
import sys
from functools import partial, wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.util import cache_from_source, decode_source
from pathlib import Path
from unittest.mock import patch

from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

_MARK = "checks" + hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
"""Of compiled files, so that those without checks, or with those of another version of this file, are not taken."""

_typed = beartype(conf=BeartypeConf(violation_type=TypeError))


def checked(defined):
    """A function, or a dataclass, that refuses what it does not annotate."""
    if not isinstance(defined, type):
        return _checked(defined)
    if "__dataclass_fields__" in vars(defined) and "__init__" in vars(defined):
        defined.__init__ = _checked(defined.__init__)
    return defined


def _checked(function):
    """The function, which makes its check when it is called first: most are not, in most processes."""
    if not getattr(function, "__annotations__", None):
        return function
    check = None

    @wraps(function)
    def called(*arguments, **keywords):
        nonlocal check
        if check is None:
            check = _check_of(function)
        return check(*arguments, **keywords)

    return called


def unchecked(patch, *owners):
    """Until a test's `patch` is undone, functions of these modules and classes are called without their checks.

    For what is called a million times, beside a test that calls it with them.
    """
    for owner in owners:
        for name, defined in list(vars(owner).items()):
            if _is_checked(defined):
                patch.setattr(owner, name, defined.__wrapped__)
            elif isinstance(defined, property) and _is_checked(defined.fget):
                patch.setattr(owner, name, property(defined.fget.__wrapped__))


def _is_checked(defined):
    # Others wrap functions too.
    code = getattr(defined, "__code__", None)
    return hasattr(defined, "__wrapped__") and getattr(code, "co_filename", None) == __file__


def _check_of(function):
    hints = function.__annotations__.values()
    # What is written as text may be imported for type checkers alone, which jaxtyping passes over.
    if any(isinstance(hint, str) or "Tensor, '" in repr(hint) for hint in hints):
        return jaxtyped(function, typechecker=beartype)
    return _typed(function)


class _Decorates(ast.NodeTransformer):
    """Has `checked` decorate what a module defines: a class first of all, a function last."""

    def visit_Module(self, node):
        is_text = [isinstance(getattr(one, "value", None), ast.Constant) for one in node.body]
        line = ast.parse("from shape_checks import checked as _checks_shapes_of").body[0]
        node.body.insert(int(is_text[:1] == [True]), line)
        return self.generic_visit(node)

    def visit_ClassDef(self, node):
        node.decorator_list.insert(0, _name(node))
        return self.generic_visit(node)

    def visit_FunctionDef(self, node):
        # Its inner functions stay as they are.
        node.decorator_list.append(_name(node))
        return node


def _name(node):
    return ast.copy_location(ast.Name("_checks_shapes_of", ast.Load()), node)


class _Loader(SourceFileLoader):
    def source_to_code(self, data, path, *, _optimize=-1):
        tree = _Decorates().visit(ast.parse(decode_source(data), path))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def exec_module(self, module):
        marked = partial(cache_from_source, optimization=_MARK)
        # Imports hold a lock.
        with patch("importlib._bootstrap_external.cache_from_source", marked):
            return super().exec_module(module)


class _Finder(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != "papo":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install():
    """From here on papo is imported with checks.

    Raises:
        RuntimeError: it was imported already.
    """
    if "papo" in sys.modules:
        raise RuntimeError("papo was imported before its checks were installed")
    sys.meta_path.insert(0, _Finder())
