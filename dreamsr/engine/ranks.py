"""The processes of one `torchrun`: who does what, on which device, and what they tell one another."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

from dreamsr.errors import DreamSRError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among the `world` processes of a job; `local` counts those of one machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def from_environment(cls) -> "Ranks":
        """This process as torchrun's environment variables describe it; without them it is alone."""
        values = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
        return cls(*map(int, values)) if all(v.isdecimal() for v in values) else cls()

    def own_share(self, items: Sequence[T]) -> Sequence[T]:
        """Every world-th item from the rank on."""
        return items[self.rank :: self.world]

    def own_first(self, items: Sequence[T]) -> list[T]:
        """Every world-th item from the rank on, then those of the next ranks, in case they die or fall behind."""
        return [item for k in range(self.world) for item in items[(self.rank + k) % self.world :: self.world]]

    def device(self, name: str) -> str:
        """`auto` and `cuda` mean the GPU of this rank, where there is one."""
        import torch

        if self.world == 1 or name not in ("auto", "cuda") or not torch.cuda.is_available():
            return name
        return f"cuda:{self.local % torch.cuda.device_count()}"

    @contextmanager
    def joined(self, device: str = "cpu") -> Iterator[None]:
        """Inside, values go from rank to rank; nobody comes in, or leaves in peace, before all do.

        device: the kind that tensors to `add` are on.
        """
        if self.world == 1:
            yield
            return
        from torch import distributed

        # decoding photos at the first rank may take hours
        distributed.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=timedelta(days=1))
        yield
        self.any(False)
        # not after an error: NCCL waits for all ranks here, and the others may wait elsewhere
        distributed.destroy_process_group()

    def first(self, make: Callable[[], T]) -> T:
        """What `make` returns at rank 0, the only one that calls it; its errors are raised by all."""
        if self.world == 1:
            return make()
        from torch import distributed

        made: list[object] = [None, None]
        if self.rank == 0:
            try:
                made[0] = make()
            except DreamSRError as error:
                made[1] = error
        distributed.broadcast_object_list(made)
        if isinstance(failure := made[1], DreamSRError):
            failure.told = self.rank != 0
            raise failure
        return cast(T, made[0])

    def any(self, flag: bool) -> bool:
        """Whether the flag is true at any rank."""
        if self.world == 1:
            return flag
        import torch
        from torch import distributed

        flags = torch.tensor(int(flag))
        distributed.all_reduce(flags)
        return bool(flags)

    def add(self, tensors: "Sequence[Tensor]") -> None:
        """Replace tensors by their sums over all ranks, in one message."""
        if self.world == 1:
            return
        import torch
        from torch import distributed

        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view(tensor.shape))


ALONE = Ranks()
