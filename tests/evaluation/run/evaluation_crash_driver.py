"""Kills evaluate.py at chosen moments and continues it. Usage: evaluation_crash_driver.py FOLDER."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from crash_frame import before, die, on_call, run_cases

from papo.commands.evaluation import job
from papo.evaluation.run import runner
from papo.storage import files, responses

COMMAND = [
    "benchmark.limit=4",
    "rollout.num_responses=2",
    "rollout.max_response_tokens=24",
    "evaluation.tokens_per_batch=180",
]


def die_in_the_middle_of_a_write(file, number):
    original = files.AppendOnlyFile.append
    calls = []

    def patched(self, lines):
        original(self, lines)
        if self.path.name == file:
            calls.append(None)
            if len(calls) == number:
                os.truncate(self.path, self.path.stat().st_size - 30)
                die()

    files.AppendOnlyFile.append = patched


MOMENTS = {
    "while_sampling": lambda: before(runner, "sample_prompts", on_call(2)),
    "in_the_second_set": lambda: before(runner, "sample_prompts", on_call(4)),
    "between_responses_and_their_batch": lambda: before(responses, "_csv_line", on_call(2)),
    "in_the_middle_of_a_response": lambda: die_in_the_middle_of_a_write("responses.jsonl", 2),
    "in_the_middle_of_a_problem": lambda: die_in_the_middle_of_a_write("problems.jsonl", 5),
    "in_the_middle_of_a_batch_row": lambda: die_in_the_middle_of_a_write("batches.csv", 3),
    "before_the_tables": lambda: before(job, "summarize", on_call(1)),
}


if __name__ == "__main__":
    cases = {name: [sabotage] for name, sabotage in MOMENTS.items()}
    run_cases(Path(sys.argv[1]), "evaluate.py", COMMAND, cases)
