"""What one GPU answers about a published run in twelve minutes, the most valuable question first.

    python -m benchmarks.gpu prepare            # where pip is: wheels for a machine with Python 3.12 and torch alone
    python -m benchmarks.gpu toy                # the same code on a CPU, at toy size
    python -m benchmarks.gpu device             # on a GPU
    python -m benchmarks.gpu report ANSWERS     # a run's answers, into docs/benchmarks.md

The experiment is composed from conf/ and built by train.py's own functions; weights are random, of the published
architecture, and prompts are noise of the published shape. A cell asks one question; each of its answers is a line
of JSON, written as soon as it is known. A cell that fails, hangs or ends its process costs itself alone.
"""
