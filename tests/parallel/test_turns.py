"""Jobs that ranks do in turn: each once, results in order on all ranks, the jobs the same everywhere."""

import pytest
from pool import on_ranks, outcomes

pytestmark = pytest.mark.dist


def squares(ranks, count):
    mine = []

    def square(job):
        mine.append(job)
        return job * job

    return list(ranks.in_turn(iter(range(count)), square)), mine


def counted(ranks):
    return [squares(ranks, count) for count in (0, 1, 3, 6, 7)]


def test_every_job_is_done_once_and_all_ranks_get_its_result():
    from papo.parallel import Ranks

    alone = counted(Ranks())
    for (results, mine), *others in zip(alone, *on_ranks(counted, size=3), strict=True):
        assert results == [job * job for job in mine]
        assert [found for found, _ in others] == [results] * 3
        assert [jobs for _, jobs in others] == [mine[rank::3] for rank in range(3)]


def unequal(ranks, jobs):
    return list(ranks.in_turn(jobs[ranks.rank], str, shows=lambda job: job, remedy="Mend it."))


@pytest.mark.parametrize("jobs", [([1, 2], [1, 3]), ([1, 2, 3], [1, 2]), ([1, 2], [1, 2, 3, 4])])
def test_ranks_with_other_jobs_are_refused(jobs):
    for kind, text in outcomes(unequal, jobs):
        assert kind == "raised"
        assert "all ranks have the same work to do; rank 0 has [" in text
        assert "Mend it." in text
