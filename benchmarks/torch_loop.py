"""The yardstick of benchmarks/speed.py: SSDnet's grid setting as a plain PyTorch loop.

What a user would write: the skip network of Deep Image Prior as modules, one image after another,
Adam, the patch loss of Eq. 2, a stop below the threshold, the score of Eq. 3 from a running average
of outputs. It needs torch and numpy only.

Commands:
  python benchmarks/torch_loop.py --out=DIR --max_steps=100 A.npy B.npy     maps DIR/A.npy ...
  python benchmarks/torch_loop.py --serve A.npy                             see `serve`
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

CHANNELS, SKIP = (16, 32, 64, 128, 128), 4
PATCH, STRIDE = 16, 8  # pixels
NOISE, RATE, THRESHOLD, MEMORY = 0.01, 0.01, 1e-4, 0.9


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, padding_mode="reflect")


def block(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        convolution(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)
    )


class Scale(nn.Module):
    """One scale of the encoder-decoder and, inside it, all deeper ones."""

    def __init__(self, inputs: int, index: int):
        super().__init__()
        width = CHANNELS[index]
        last = index + 1 == len(CHANNELS)
        inner = nn.Identity() if last else Scale(width, index + 1)
        self.deeper = nn.Sequential(
            block(inputs, width, 3, stride=2),
            block(width, width, 3),
            inner,
            nn.Upsample(scale_factor=2, mode="bilinear"),
        )
        self.skip = block(inputs, SKIP, 1)
        merged = SKIP + (width if last else CHANNELS[index + 1])
        self.merge = nn.Sequential(
            nn.BatchNorm2d(merged), block(merged, width, 3), block(width, width, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.merge(torch.cat([self.skip(x), self.deeper(x)], dim=1))


def network(channels: int) -> nn.Module:
    return nn.Sequential(Scale(channels, 0), nn.Conv2d(CHANNELS[0], channels, 1), nn.Sigmoid())


class Fit:
    """One image's network, optimizer and running average."""

    def __init__(self, image: torch.Tensor, seed: int):
        torch.manual_seed(seed)
        self.image = image
        self.model = network(image.shape[1])
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=RATE)
        ones = torch.ones(1, 1, *image.shape[2:])
        columns = functional.unfold(ones, PATCH, stride=STRIDE)
        covered = functional.fold(columns, image.shape[2:], PATCH, stride=STRIDE)
        self.weights = covered / (columns.shape[-1] * PATCH**2 * image.shape[1])
        self.average, self.weight = torch.zeros_like(image), 0.0

    def step(self) -> float:
        self.optimizer.zero_grad()
        output = self.model(self.image + NOISE * torch.randn_like(self.image))
        loss = ((self.image - output).square() * self.weights).sum()
        loss.backward()
        self.optimizer.step()
        self.average = MEMORY * self.average + (1 - MEMORY) * output.detach()
        self.weight = MEMORY * self.weight + 1 - MEMORY
        return loss.item()

    def score_map(self) -> np.ndarray:
        """Eq. 3 at stride 1, divided by the patches that cover a pixel."""
        error = (self.image - self.average / self.weight).square().mean(1, keepdim=True)
        patches = functional.avg_pool2d(error, PATCH, stride=1)
        kernel = torch.ones(1, 1, PATCH, PATCH)
        painted = functional.conv_transpose2d(patches, kernel)
        return (painted / functional.conv_transpose2d(torch.ones_like(patches), kernel))[0, 0]


def load(path: str) -> torch.Tensor:
    """(h, w, c) in [0, 1] as (1, c, h, w)."""
    return torch.from_numpy(np.load(path).astype(np.float32)).permute(2, 0, 1)[None].contiguous()


def serve(path: str) -> None:
    """For each number of steps on standard input, the seconds they take, after a first step."""
    fit = Fit(load(path), seed=0)
    fit.step()
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            fit.step()
        print(time.perf_counter() - started, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+")
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--max_steps", type=int, default=310)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.serve:
        serve(arguments.images[0])
        return
    steps = []
    for path in arguments.images:
        fit = Fit(load(path), seed=0)
        taken = 0
        while taken < arguments.max_steps:
            taken += 1
            if fit.step() < THRESHOLD:
                break
        np.save(arguments.out / Path(path).name, fit.score_map())
        steps.append(taken)
    print(json.dumps({"torch": torch.__version__, "steps": steps}))


if __name__ == "__main__":
    main()
