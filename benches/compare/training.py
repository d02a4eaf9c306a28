"""Training steps of PyTorch and `runner` side by side, in one run: `python benches/compare/training.py [ROUNDS]`.

Three models: `clip` (builtin:mini-clip, batch 256), `prior` (an autoregressive transformer over 7 × 7 codes, batch 64) and
`tokenizer` (a VQ-VAE on 28 × 28 pictures, batch 128). A step is forward, loss, backward, shortening of the gradient and
AdamW's update, on 2 threads. Each round measures every engine once; printed are medians of the rounds and the ratios to
the best of PyTorch.

PyTorch runs as well as it does on a CPU: fused AdamW, scaled_dot_product_attention, channels last for the tokenizer,
eager and, with `--compile`, through torch.compile.

`python benches/compare/training.py serve` is PyTorch alone as a process of its own that answers lines on stdin, as
runner/nn/benches/step.rs does: `step MODEL REPEATS` with the seconds of that many steps.
"""

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
# Steps measured at a time: about half a second.
REPEATS = {"clip": 8, "prior": 2, "tokenizer": 6}


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
    import torch

    torch.set_num_threads(THREADS)
    torch.set_num_interop_threads(1)
    torch.manual_seed(0)
    steps = {}
    for name, make in models(torch).items():
        model, inputs = make()
        run = torch.compile(model) if compiled else model
        optimizer = torch.optim.AdamW(model.parameters(), 1e-4, (0.9, 0.98), 1e-6, 0.1, fused=True)

        def step(model=model, run=run, inputs=inputs, optimizer=optimizer):
            optimizer.zero_grad(set_to_none=True)
            run(*inputs).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
            optimizer.step()

        for _ in range(3):
            step()
        steps[name] = step
    print("ready", flush=True)
    for line in sys.stdin:
        _, name, repeats = line.split()
        start = time.perf_counter()
        for _ in range(int(repeats)):
            steps[name]()
        print(time.perf_counter() - start, flush=True)


class Engine:
    """A process that answers lines."""

    def __init__(self, name, command):
        self.name = name
        environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
        self.answer()

    def answer(self):
        answer = self.process.stdout.readline().strip()
        if not answer:
            sys.exit(f"{self.name} ended early")
        return answer

    def seconds(self, model, repeats):
        print(f"step {model} {repeats}", file=self.process.stdin, flush=True)
        return float(self.answer()) / repeats


def program():
    """Builds our side and says where it is."""
    build = ["cargo", "build", "--release", "--workspace", "--bench", "step", "--message-format", "json"]
    lines = subprocess.run(build, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    return next(line["executable"] for line in found if line.get("executable") and line["target"]["name"] == "step")


def main(rounds, compiled):
    engines = [Engine("runner", [program(), "serve"]), Engine("PyTorch", [sys.executable, __file__, "serve"])]
    if compiled:
        engines.append(Engine("PyTorch compiled", [sys.executable, __file__, "serve", "--compile"]))
    times = {(model, engine.name): [] for model in MODELS for engine in engines}
    for _ in range(rounds):
        for model in MODELS:
            for engine in engines:
                times[model, engine.name].append(engine.seconds(model, REPEATS[model]))
    print("| step | " + " | ".join(f"{engine.name}, ms" for engine in engines) + " | ratio |")
    print("| --- |" + " --- |" * (len(engines) + 1))
    for model in MODELS:
        ours, *theirs = [statistics.median(times[model, engine.name]) for engine in engines]
        cells = " | ".join(f"{1e3 * time:.1f}" for time in [ours, *theirs])
        print(f"| {model} | {cells} | {min(theirs) / ours:.2f} |")


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--compile"]
    compiled = "--compile" in sys.argv
    if arguments[:1] == ["serve"]:
        serve(compiled)
    else:
        main(int(arguments[0]) if arguments else 7, compiled)
