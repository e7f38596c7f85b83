"""A `python` whose processes are forked from one that has imported the libraries: it costs half a second, not seven.

`serve SOCKET` imports and forks; `serve SOCKET libraries` imports nothing of papo, so that a process may have another.
`start SOCKET NAME WORDS` behaves as `python WORDS` where python is NAME: same folder, variables, files and exit code,
and a signal to it is one to what it started. The front doors are not imported beforehand, so what they do when they
are, every process does.
"""

import array
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

LIBRARIES = ("lightning.pytorch", "transformers", "hydra.main", "datasets", "wandb", "scipy.stats")
MODELS = tuple(f"transformers.models.{n}.modeling_{n}" for n in ("qwen2_5_vl", "qwen3_vl"))
PRELOADED = (
    *(*LIBRARIES, "matplotlib.pyplot"),
    *("papo.evaluation", "papo.lab", "papo.masking", "papo.models", "papo.objective"),
    *("papo.parallel", "papo.rewards", "papo.rollout", "papo.training"),
)
SIGNALS = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2")
FORWARDED = {getattr(signal, name) for name in SIGNALS}


def start(path, name, *words):
    """Has a process started, and is it for whoever looks."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    asked = {
        "words": words,
        "executable": name,
        "folder": os.getcwd(),
        "variables": dict(os.environ),
        "ignored": [n for n in FORWARDED if signal.getsignal(n) is signal.SIG_IGN],
    }
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    files = array.array("i", (0, 1, 2))
    connection.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
    with connection.makefile("rwb") as talk:
        talk.write(json.dumps(asked).encode() + b"\n")
        talk.flush()
        child = int(talk.readline())
        for number in FORWARDED - set(asked["ignored"]):
            signal.signal(number, lambda number, frame: os.kill(child, number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        status = int(talk.readline())
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    os._exit(code)


def serve(path):
    """Forks for whoever connects, until the first caller is gone; returns in each child, with its request."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(64)
    woken, waker = os.pipe()
    for end in (woken, waker):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    children = {}
    print("ready", flush=True)
    while True:
        found, _, _ = select.select([0, listening, woken, *children], [], [])
        if 0 in found:
            for child in children.values():
                os.kill(child, signal.SIGKILL)
            sys.exit()
        for connection in set(found) & set(children):
            # Nothing is said there any more: it was killed.
            os.kill(children[connection], signal.SIGKILL)
        if woken in found:
            os.read(woken, 4096)
            for connection, child in list(children.items()):
                if (ended := os.waitpid(child, os.WNOHANG))[0]:
                    del children[connection]
                    tell(connection, ended[1])
                    connection.close()
        if listening in found:
            connection, _ = listening.accept()
            _, files, _, _ = socket.recv_fds(connection, 1, 3)
            with connection.makefile("rb") as lines:
                asked = json.loads(lines.readline())
            if not (child := os.fork()):
                signal.set_wakeup_fd(-1)
                for opened in (listening, connection, *children):
                    opened.close()
                for opened in (woken, waker):
                    os.close(opened)
                return asked, files
            for file in files:
                os.close(file)
            children[connection] = child
            tell(connection, child)


def tell(connection, number):
    with suppress(OSError):
        connection.sendall(b"%d\n" % number)


def become(asked, files):
    """Runs what was asked for in this process, as the interpreter does."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    for number in (*FORWARDED, signal.SIGCHLD):
        is_ignored = number in asked["ignored"]
        signal.signal(number, signal.SIG_IGN if is_ignored else signal.SIG_DFL)
    if signal.SIGINT not in asked["ignored"]:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["variables"])
    sys.executable = asked["executable"]
    words = list(asked["words"])
    while words[0].startswith(("-u", "-B", "-S", "-X")):
        words.pop(0)
    is_module, is_code = words[0] == "-m", words[0] == "-c"
    sys.argv = words[1:] if is_module else words
    first = os.path.dirname(os.path.abspath(words[0]))
    if is_module or is_code:
        first = asked["folder"] if is_module else ""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [first, *filter(None, paths)]
    if is_code:
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(sys.argv.pop(1), "<string>", "exec"), vars(main))  # noqa: S102
    elif is_module:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "start":
        start(*sys.argv[2:])
    # What is imported stays.
    gc.disable()
    repository = Path(__file__).resolve().parents[1]
    of_papo = sys.argv[3:] != ["libraries"]
    if of_papo:
        composing_once = importlib.import_module("composing_once")
        composing_once.beforehand(repository / "conf", "train", "evaluate", "analyze")
    sys.path[0] = str(repository)
    for name in PRELOADED if of_papo else (*LIBRARIES, *MODELS):
        importlib.import_module(name)
    if not of_papo:
        del sys.path[0]
    # A child that ends would look at, and so copy, every page: more than a second.
    gc.freeze()
    gc.enable()
    become(*serve(sys.argv[2]))
