"""Networks of other tools, randomly initialised, for what they cost; and the usual diffusers loop."""

import importlib

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from dreamsr.files.checkpoint import Model


class Compact(nn.Module):
    """SRVGGNetCompact, as realesr-general-x4v3 has it: plain convolutions, then pixel shuffle."""

    def __init__(self, width: int = 64, layers: int = 32, scale: int = 4) -> None:
        super().__init__()
        inner = [m for _ in range(layers) for m in (nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width))]
        ends = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3 * scale**2, 3, padding=1)
        self.body = nn.Sequential(ends[0], nn.PReLU(width), *inner, ends[1], nn.PixelShuffle(scale))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, h, w) to (B, 3, 4 h, 4 w)."""
        out: Tensor = self.body(x) + F.interpolate(x, scale_factor=float(self.scale), mode="nearest")
        return out


class Dense(nn.Module):
    """Five densely connected convolutions, the last added to the input."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        outs = [growth] * 4 + [width]
        self.convs = nn.ModuleList(nn.Conv2d(width + i * growth, out, 3, padding=1) for i, out in enumerate(outs))

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for conv in self.convs[:-1]:
            seen.append(F.leaky_relu(conv(torch.cat(seen, 1)), 0.2))
        out: Tensor = x + 0.2 * self.convs[-1](torch.cat(seen, 1))
        return out


class RRDB(nn.Module):
    """RRDBNet, as Real-ESRGAN's x4plus has it: residual blocks of three dense ones, enlarged twice by 2."""

    def __init__(self, width: int = 64, growth: int = 32, blocks: int = 23) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Sequential(*[Dense(width, growth) for _ in range(3)]) for _ in range(blocks))
        self.body = nn.Conv2d(width, width, 3, padding=1)
        self.ups = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.leave = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, h, w) to (B, 3, 4 h, 4 w)."""
        x = h = self.enter(x)
        for block in self.blocks:
            h = h + 0.2 * block(h)
        x = x + self.body(h)
        for up in self.ups[:2]:
            x = F.leaky_relu(up(F.interpolate(x, scale_factor=2.0, mode="nearest")), 0.2)
        out: Tensor = self.leave(F.leaky_relu(self.ups[2](x), 0.2))
        return out


@torch.inference_mode()
def diffusers_loop(model: Model, lr: Image.Image, steps: int) -> Tensor:
    """One picture by a DDIMScheduler as it is usually written: fp32, the condition seen anew at every step."""
    diffusers = importlib.import_module("diffusers")
    size = (model.config.scale * lr.height, model.config.scale * lr.width)
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=1000, prediction_type="sample", clip_sample=False)
    scheduler.set_timesteps(steps)
    pixels = torch.frombuffer(bytearray(lr.convert("RGB").tobytes()), dtype=torch.uint8).view(lr.height, lr.width, 3)
    x = pixels.permute(2, 0, 1)[None].float() / 127.5 - 1
    anchor, scale = F.interpolate(x, size, mode="bicubic"), torch.tensor([float(model.config.scale)])
    u = torch.randn(1, 3, *size)
    for t in scheduler.timesteps:
        angle = (t / scheduler.config.num_train_timesteps).reshape(1).float()
        u = scheduler.step(model.network(u, angle, model.network.encode(anchor, scale)), t, u).prev_sample
    return (anchor + u / model.config.process.k).clamp(-1, 1)
