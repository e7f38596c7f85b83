"""Runs `papo train` as on a system without what Windows does not have: modules, signals, functions of the system.

Other packages know Windows themselves, so they are imported first, and modules are missing to papo's own code alone.
"""

import builtins
import importlib
import os
import runpy
import signal
import sys

from lightning.pytorch.trainer.connectors import signal_connector

for name in ("lightning.pytorch", "torch.distributed.launcher.api", "transformers", "datasets"):
    importlib.import_module(name)
signal_connector._IS_WINDOWS = True

MODULES = ("fcntl", "resource", "pwd", "grp", "termios")
SIGNALS = ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGQUIT", "SIGURG", "SIGALRM", "SIGPROF", "SIGKILL")
FUNCTIONS = ("pthread_sigmask", "setitimer", "ITIMER_PROF", "alarm")

imported = builtins.__import__


def without(name, globals=None, *rest, **more):
    if name in MODULES and str((globals or {}).get("__name__")).startswith("papo"):
        raise ImportError(f"no module named {name}")
    return imported(name, globals, *rest, **more)


class Signals:
    """Those that Windows has."""

    members = (signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGINT, signal.SIGTERM)

    def __iter__(self):
        return iter(self.members)

    def __call__(self, number):
        return next(one for one in self.members if one == number)


builtins.__import__ = without
for name in (*SIGNALS, *FUNCTIONS):
    delattr(signal, name)
for name in ("getuid", "uname", "fork"):
    delattr(os, name)
signal.Signals = Signals()
signal.valid_signals = lambda: {*Signals.members}

if __name__ == "__main__":
    sys.argv[1:1] = ["train"]
    runpy.run_module("papo", run_name="__main__", alter_sys=True)
