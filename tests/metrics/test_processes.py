# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from diffscm_diffusers.metrics import Minimality


def make_images() -> torch.Tensor:
    return torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def measure_a_share(rank: int, folder: str) -> None:
    """Rank 0 has three images in two batches, rank 1 two. A third metric has samples on rank 0 only."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    image = make_images()
    mean, none, lonely = Minimality(), Minimality(reduction="none"), Minimality(reduction="none")
    for part in (slice(0, 1), slice(1, 3)) if rank == 0 else (slice(3, 5),):
        for metric in (mean, none, lonely) if rank == 0 else (mean, none):
            metric.update(torch.zeros_like(image[part]), image[part])
    torch.save([mean.compute(), none.compute(), lonely.compute()], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    mp.start_processes(measure_a_share, args=(str(tmp_path),), nprocs=2, start_method="fork")
    expected = make_images().flatten(1).mean(dim=1)
    for rank in range(2):
        mean, none, lonely = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(mean, expected.mean())
        torch.testing.assert_close(none, expected)
        torch.testing.assert_close(lonely, expected[:3])
