"""How the processes of a job find each other: what torch.distributed is asked for. The jobs' own tests start them."""

import pytest
import torch
import torch.distributed

from vaectl.ranks import backends_for


@pytest.mark.parametrize(
    ("gpu", "nccl", "device", "backends"),
    [
        (False, True, "auto", "gloo"),  # a CUDA build on a machine without a GPU: NCCL 2.30 refuses to start
        (False, True, "cuda", "gloo"),
        (True, True, "cpu", "gloo"),
        (True, True, "auto", "cpu:gloo,cuda:nccl"),
        (True, True, "cuda:1", "cpu:gloo,cuda:nccl"),
        (True, False, "auto", "gloo"),
    ],
)
def test_nccl_is_for_gpus_that_are_used(monkeypatch, gpu, nccl, device, backends):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: nccl)
    assert backends_for(device) == backends
