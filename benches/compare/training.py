#!/usr/bin/env python3
"""Training steps of `runner` and PyTorch side by side, in one run.

    python benches/compare/training.py [--rounds 7] [--isa avx2] [--compile] [MODEL…]

Three models: `clip` (builtin:mini-clip, batch 256), `prior` (an autoregressive transformer over 7 × 7 codes, batch 64) and
`tokenizer` (a VQ-VAE on 28 × 28 pictures, batch 128). A step is forward, loss, backward, shortening of the gradient and
AdamW's update, in f32 on 2 threads. Each engine is a process of its own; each round measures every engine once, for as many steps as
take the slowest half a second. Printed are milliseconds a step and how many times as fast `runner` is: the median of the rounds
and, in brackets, the least and the most.

PyTorch runs as well as it does on a CPU: fused AdamW, scaled_dot_product_attention, channels last for the tokenizer; eager and,
with `--compile`, through torch.compile as well (needs a C++ compiler; a model that it cannot compile is left out).

`training.py serve` is PyTorch alone, as a process that answers lines on stdin, as runner/nn/benches/step.rs does: `step MODEL
REPEATS` with the seconds of that many steps.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
THREADS = 2
MODELS = ["clip", "prior", "tokenizer"]


def models(torch):
    """Functions that make each model: a function of no arguments that computes the loss, and the parameters."""
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self, width, heads, hidden, causal, activation):
            super().__init__()
            self.heads, self.causal, self.activation = heads, causal, activation
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

        def forward(self, x):
            batch, tokens, width = x.shape
            qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, width // self.heads)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
            x = x + self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
            return x + self.down(self.activation(self.up(self.norm2(x))))

    def quick_gelu(x):
        return x * torch.sigmoid(1.702 * x)

    class Clip(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(3, 128, 7, 7, bias=False)
            self.class_token = nn.Parameter(torch.randn(128))
            self.image_positions = nn.Parameter(0.02 * torch.randn(17, 128))
            self.first_norm, self.image_norm = nn.LayerNorm(128), nn.LayerNorm(128)
            self.image_blocks = nn.Sequential(*[Block(128, 4, 448, False, quick_gelu) for _ in range(3)])
            self.image_projection = nn.Linear(128, 64, bias=False)
            self.tokens = nn.Embedding(722, 96)
            self.text_positions = nn.Parameter(0.02 * torch.randn(32, 96))
            self.text_blocks = nn.Sequential(*[Block(96, 4, 384, True, quick_gelu) for _ in range(2)])
            self.text_norm = nn.LayerNorm(96)
            self.text_projection = nn.Linear(96, 64, bias=False)
            self.log_scale = nn.Parameter(torch.tensor(2.6592))

        def forward(self, pixels, ids):
            n = len(pixels)
            x = self.patch(pixels).flatten(2).transpose(1, 2)
            x = torch.cat([self.class_token.expand(n, 1, -1), x], 1) + self.image_positions
            x = self.image_blocks(self.first_norm(x))
            image = F.normalize(self.image_projection(self.image_norm(x[:, 0])), dim=1)
            x = self.text_blocks(self.tokens(ids) + self.text_positions[: ids.shape[1]])
            text = F.normalize(self.text_projection(self.text_norm(x[:, -1])), dim=1)
            logits = self.log_scale.exp() * image @ text.T
            target = torch.arange(n)
            return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    class Prior(nn.Module):
        def __init__(self):
            super().__init__()
            self.codes = nn.Embedding(266, 192)
            self.positions = nn.Parameter(0.02 * torch.randn(49, 192))
            self.blocks = nn.Sequential(*[Block(192, 6, 768, True, F.gelu) for _ in range(6)])
            self.norm = nn.LayerNorm(192)
            self.head = nn.Linear(192, 256)

        def forward(self, inputs, targets):
            x = self.blocks(self.codes(inputs) + self.positions)
            return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets.flatten())

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(128, 32, 3, 1, 1), nn.Conv2d(32, 128, 1)

        def forward(self, x):
            return x + self.second(F.relu(self.first(F.relu(x))))

    class Tokenizer(nn.Module):
        """The VQ-VAE of van den Oord et al. 2017, section 4.1, for 28 × 28 pictures: 7 × 7 codes of 256."""

        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(
                nn.Conv2d(1, 64, 4, 2, 1), nn.ReLU(), nn.Conv2d(64, 128, 4, 2, 1), nn.ReLU(), nn.Conv2d(128, 128, 3, 1, 1),
                Residual(), Residual(), nn.ReLU(), nn.Conv2d(128, 64, 1))  # fmt: skip
            self.codebook = nn.Parameter(torch.randn(256, 64))
            self.decoder = nn.Sequential(
                nn.Conv2d(64, 128, 3, 1, 1), Residual(), Residual(), nn.ReLU(),
                nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(64, 1, 4, 2, 1))  # fmt: skip

        def forward(self, pixels):
            z = self.encoder(pixels)
            flat = z.permute(0, 2, 3, 1).reshape(-1, 64)
            with torch.no_grad():
                squares = (flat**2).sum(1, keepdim=True) + (self.codebook**2).sum(1)
                codes = torch.addmm(squares, flat, self.codebook.T, alpha=-2).argmin(1)
            e = F.embedding(codes, self.codebook)
            loss = F.mse_loss(e, flat.detach()) + 0.25 * F.mse_loss(flat, e.detach())
            straight = (flat + (e - flat).detach()).view(len(pixels), 7, 7, 64).permute(0, 3, 1, 2)
            return F.mse_loss(self.decoder(straight), pixels) + loss

    def clip():
        inputs = torch.randn(256, 3, 28, 28), torch.randint(722, (256, 24))
        return Clip(), inputs

    def prior():
        return Prior(), (torch.randint(266, (64, 49)), torch.randint(256, (64, 49)))

    def tokenizer():
        return Tokenizer().to(memory_format=torch.channels_last), (
            torch.rand(128, 1, 28, 28).to(memory_format=torch.channels_last),)  # fmt: skip

    return {"clip": clip, "prior": prior, "tokenizer": tokenizer}


def serve(compiled):
    """Answers lines. A model is made, compiled and warmed up when it is first asked for."""
    import torch

    torch.set_num_threads(THREADS)
    torch.set_num_interop_threads(1)
    torch.manual_seed(0)
    made = models(torch)
    steps = {}

    def prepare(name):
        model, inputs = made[name]()
        run = torch.compile(model) if compiled else model
        optimizer = torch.optim.AdamW(model.parameters(), 1e-4, (0.9, 0.98), 1e-6, 0.1, fused=True)

        def step():
            optimizer.zero_grad(set_to_none=True)
            run(*inputs).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
            optimizer.step()

        for _ in range(3):
            step()
        return step

    print("ready", flush=True)
    for line in sys.stdin:
        _, name, repeats = line.split()
        try:
            if name not in steps:
                steps[name] = prepare(name)
            start = time.perf_counter()
            for _ in range(int(repeats)):
                steps[name]()
            print(time.perf_counter() - start, flush=True)
        except Exception as error:  # what torch.compile cannot do comes as one of many kinds
            print(f"error {type(error).__name__}: {error}".replace("\n", " ")[:300], flush=True)


class Engine:
    """A process that answers lines."""

    def __init__(self, name, command, isa):
        self.name = name
        threads = str(THREADS)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
        if isa == "avx2":
            environment.update(
                RUNNER_ISA="avx2", ATEN_CPU_CAPABILITY="avx2", ONEDNN_MAX_CPU_ISA="AVX2", MKL_ENABLE_INSTRUCTIONS="AVX2")  # fmt: skip
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
        if self.answer() != "ready":
            sys.exit(f"error: {name} did not start")

    def answer(self):
        answer = self.process.stdout.readline().strip()
        if not answer:
            sys.exit(f"error: {self.name} ended early")
        return answer

    def seconds(self, model, repeats):
        """Seconds of a step, or none if the engine cannot do it."""
        print(f"step {model} {repeats}", file=self.process.stdin, flush=True)
        answer = self.answer()
        if answer.startswith("error"):
            print(f"{self.name}, {model}: {answer}", file=sys.stderr)
            return None
        return float(answer) / repeats

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def program():
    """Builds our side and says where it is."""
    build = ["cargo", "build", "--quiet", "--release", "--workspace", "--bench", "step", "--message-format", "json"]
    lines = subprocess.run(build, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return next(line["executable"] for line in found if line.get("executable") and line["target"]["name"] == "step")


def spread(values, digits):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def measure(model, engines, rounds, seconds):
    """Prints a model's row; times are compared within their round."""
    once = {engine: engine.seconds(model, 1) for engine in engines}
    able = [engine for engine in engines if once[engine]]
    if engines[0] not in able:
        sys.exit(f"error: {engines[0].name} cannot train {model}")
    once = {engine: engine.seconds(model, 2) for engine in able}
    repeats = max(1, round(seconds / max(once.values())))
    times = {engine: [] for engine in able}
    for _ in range(rounds):
        for engine in able:
            times[engine].append(engine.seconds(model, repeats))
    cells = [spread([1e3 * time for time in times[engine]], 1) if engine in able else "" for engine in engines]
    for engine in engines[1:]:
        ratios = [theirs / ours for ours, theirs in zip(times[engines[0]], times[engine])] if engine in able else []
        cells.append(f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f}–{max(ratios):.2f})" if ratios else "")
    print(f"| {model} | " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="of " + ", ".join(MODELS) + "; all by default")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of the slowest engine in a round")
    parser.add_argument("--isa", choices=["best", "avx2"], default="best", help="avx2 switches AVX-512 off")
    parser.add_argument("--compile", action="store_true", help="PyTorch through torch.compile as well")
    parser.add_argument("--program", help="the built benchmark `step`, instead of building it")
    arguments = parser.parse_args()
    if unknown := [model for model in arguments.models if model not in MODELS]:
        parser.error(f"no model {', '.join(unknown)}; there are {', '.join(MODELS)}")
    commands = {
        "runner": [arguments.program or program(), "serve"],
        "PyTorch": [sys.executable, __file__, "serve"],
    }
    if arguments.compile:
        commands["PyTorch compiled"] = [sys.executable, __file__, "serve", "--compile"]
    engines = [Engine(name, command, arguments.isa) for name, command in commands.items()]
    try:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        load = os.getloadavg()[0]
        print(f"isa {arguments.isa}, runner {commit}, {arguments.rounds} rounds, {THREADS} threads, load {load:.2f}; ms a step\n")
        names = list(commands)
        print("| step | " + " | ".join(names + [f"× {name}" for name in names[1:]]) + " |")
        print("| --- |" + " --- |" * (2 * len(names) - 1), flush=True)
        for model in MODELS:
            if not arguments.models or model in arguments.models:
                measure(model, engines, arguments.rounds, arguments.seconds)
    finally:
        for engine in engines:
            engine.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve("--compile" in sys.argv)
    else:
        main()
