"""The processes of one `torchrun`: who does what first, on which device, and from when on."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among the `world` processes of a job; `local` counts those of one machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def from_environment(cls) -> "Ranks":
        """As torchrun set it; alone without it."""
        values = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
        return cls(*map(int, values)) if all(v.isdecimal() for v in values) else cls()

    def own_first(self, items: Sequence[T]) -> list[T]:
        """Every world-th item from the rank on, then those of the next ranks, in case they die or fall behind."""
        return [item for k in range(self.world) for item in items[(self.rank + k) % self.world :: self.world]]

    def device(self, name: str) -> str:
        """`auto` and `cuda` mean the GPU of this rank, where there is one."""
        import torch

        if self.world == 1 or name not in ("auto", "cuda") or not torch.cuda.is_available():
            return name
        return f"cuda:{self.local % torch.cuda.device_count()}"

    def agree(self, value: int) -> int:
        """Rank 0's value, once every rank has come this far."""
        if self.world == 1:
            return value
        import torch
        from torch import distributed

        distributed.init_process_group("gloo")
        try:
            shared = torch.tensor(value)
            distributed.broadcast(shared, 0)
            distributed.barrier()
            return int(shared)
        finally:
            distributed.destroy_process_group()
