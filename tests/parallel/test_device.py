"""The device of a process, however its processes were started and whatever of the GPUs each may see."""

from types import SimpleNamespace

import pytest
import torch

from papo.parallel import Ranks, device_of_process

PLACES = {"key": "trainer.accelerator", "section": "trainer."}


class Rank(Ranks):
    """One of two tasks; the other sees a GPU of its own, or the same."""

    def __init__(self, rank, *, shared=False):
        super().__init__(rank=rank, size=2, local_rank=rank)
        self.shared = shared

    def gather(self, value):
        host, gpu = value
        other = (host, gpu if self.shared else f"{gpu} of the other")
        return [value, other] if self.rank == 0 else [other, value]


@pytest.fixture
def gpus(monkeypatch):
    def see(number):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=device.index)
        )

    return see


def found(asked="gpu", devices=2, ranks=None):
    return str(device_of_process(asked, devices=devices, ranks=ranks or Ranks(), **PLACES))


def test_each_task_has_the_only_gpu_that_it_is_shown(gpus):
    gpus(1)
    assert [found(ranks=Rank(rank)) for rank in (0, 1)] == ["cuda:0", "cuda:0"]


def test_each_task_has_the_gpu_of_its_number_where_all_are_shown(gpus):
    gpus(8)
    assert [found(ranks=Rank(rank)) for rank in (0, 1)] == ["cuda:0", "cuda:1"]
    assert found() == "cuda:0"
    assert found("auto", devices=1) == "cuda:0"
    assert found("cuda:3", devices=1) == "cuda:3"


def test_one_gpu_that_two_tasks_see_is_refused(gpus):
    gpus(1)
    with pytest.raises(ValueError, match=r"ranks 0 and 1 see the same one.*--gpus-per-task=1"):
        found(ranks=Rank(1, shared=True))


def test_fewer_gpus_than_tasks_are_refused(gpus):
    gpus(2)
    said = r"PyTorch sees 2 GPUs here, and trainer\.devices=4\. Lower it, or look at CUDA_VISIBLE_DEVICES"
    with pytest.raises(ValueError, match=said):
        found(devices=4, ranks=Rank(1))
    gpus(1)
    with pytest.raises(ValueError, match="sees 1 GPUs here"):
        found()
    with pytest.raises(ValueError, match=r"got trainer\.accelerator=cuda:1"):
        found("cuda:1", devices=1)


def test_without_a_gpu_a_run_that_asks_for_one_is_refused(gpus):
    # CUDA_VISIBLE_DEVICES="" looks like this.
    gpus(0)
    assert found("auto") == found("cpu") == "cpu"
    with pytest.raises(ValueError, match=r"no GPU here.*Set trainer=cpu, or trainer=auto"):
        found(ranks=Rank(0))


def test_a_certain_gpu_is_for_one_process_and_a_name_must_be_known(gpus):
    gpus(2)
    with pytest.raises(ValueError, match=r"got trainer\.accelerator=cuda:0\. Set"):
        found("cuda:0")
    with pytest.raises(ValueError, match="auto, cpu or cuda; got 'quantum'"):
        found("quantum")
