"""Parts to evaluate with that need no model: problems, an engine and a grader that are plain functions."""

import torch
from PIL import Image


def problem(index, answer=None, images=1):
    from papo.types import Problem

    color = (index % 256, 10, 200)
    return Problem(
        id=f"p{index}",
        question="<image>" * images + f"What is {index}?",
        answer=str(index) if answer is None else answer,
        images=tuple(Image.new("RGB", (40, 20), color) for _ in range(images)),
        source="test",
        truth={"index": index},
    )


class Problems:
    """`size` problems; those of `broken` cannot be read. Counts how often each was read."""

    def __init__(self, size, broken=()):
        self.size, self.broken, self.reads = size, set(broken), []

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        from papo.data import ProblemError

        self.reads.append(index)
        if index in self.broken:
            raise ProblemError("broken_image", f"problem {index} is broken")
        return problem(index)


class Reader:
    """A policy that only encodes: the prompt of problem i has 10 + i tokens."""

    def encode(self, problems):
        from papo.types import PromptGroup

        groups = []
        for one in problems:
            length = 10 + int(one.id[1:])
            groups.append(
                PromptGroup(
                    problem=one,
                    prompt_ids=torch.zeros(length, dtype=torch.long),
                    position_ids=torch.zeros(3, length, dtype=torch.long),
                    next_position=length,
                )
            )
        return tuple(groups)

    def process_images(self, images):
        raise AssertionError("nothing here is masked")


class Engine:
    """Response i to a prompt with seed s says so; `calls` has the ids and counts of every call."""

    def __init__(self, fail_at=None):
        self.calls, self.fail_at = [], fail_at

    def follow(self, source, version):
        pass

    def sample(self, groups, num_responses, seeds):
        from papo.types import Responses

        if self.fail_at == len(self.calls):
            raise KeyboardInterrupt
        self.calls.append(([group.problem.id for group in groups], num_responses))
        texts, lengths = [], []
        for group, seed in zip(groups, seeds, strict=True):
            for index in range(num_responses):
                right = (seed + index) % 3 == 0
                said = group.problem.answer if right else "wrong"
                texts.append(f"<think>{seed} {index}</think> \\boxed{{{said}}}")
                lengths.append(1 + (seed + index) % 5)
        mask = torch.arange(5) < torch.tensor(lengths)[:, None]
        return Responses(
            ids=torch.zeros(len(texts), 5, dtype=torch.long),
            mask=mask,
            logprobs=torch.zeros(len(texts), 5),
            finished=mask.sum(dim=1) < 5,
            texts=tuple(texts),
        )


class BoxGrader:
    """Compares what is boxed with the reference, as one strict and one lenient grader."""

    def __init__(self):
        self.closed = 0

    def __call__(self, problems, texts):
        from papo.rewards.extraction import last_boxed
        from papo.types import GradedAnswer

        assert len(problems) == len(texts)
        graded = []
        for one, text in zip(problems, texts, strict=True):
            answer = last_boxed(text)
            right = answer == one.answer
            graded.append(
                GradedAnswer(
                    answer=answer,
                    correct=right,
                    verdicts={"strict": "correct" if right else "wrong", "lenient": "correct"},
                )
            )
        return tuple(graded)

    def close(self):
        self.closed += 1


def benchmark(problems, key="set", grader=None, published_column=None):
    from papo.evaluation import Benchmark

    return Benchmark(
        key=key,
        label=key,
        group="other",
        published_column=published_column,
        problems=problems,
        grader=grader or BoxGrader(),
    )


def record(**changes):
    from papo.types import ResponseRecord

    values = {
        "benchmark": "set",
        "problem_id": "p0",
        "view": "image",
        "response_index": 0,
        "seed": 1,
        "response": "<think> a </think> \\boxed{1}",
        "reference": "1",
        "answer": "1",
        "correct": True,
        "verdicts": {"strict": "correct"},
        "num_tokens": 3,
        "stop_reason": "end",
    }
    return ResponseRecord(**{**values, **changes})
