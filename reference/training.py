"""Golden gradients of a tokenizer and of an autoregressive prior, computed by PyTorch in 64-bit floating point.

    python reference/training.py runner/nn/tests/golden

`tokenizer.json` is a small VQGAN-like autoencoder (van den Oord et al. 2017, Esser et al. 2021): strided convolution padded
at the right and bottom, group norm with SiLU, a residual block, max pool, quantisation with codebook and commitment
loss and a straight-through gradient, nearest upsampling, a transposed convolution. `prior.json` is a causal transformer
with cross-entropy, 1/8 for the text rows and 7/8 for the image rows (Ramesh et al. 2021). Each file holds inputs, the loss,
and the parameters in the order in which they are used, with their gradients. Pictures have their channels last; the weights
of convolutions are [outputs, rows, columns, inputs], of transposed ones [rows, columns, outputs, inputs].
"""

import json
import sys

import torch
from torch.nn import functional as F

torch.manual_seed(3)
parameters = []


def parameter(*shape, layout=None, scale=None, offset=0.0):
    """A parameter in PyTorch's shape; `layout` permutes it to ours."""
    fan_in = scale or (2.0 / max(1, torch.Size(shape[1:]).numel())) ** 0.5
    values = (torch.randn(*shape) * fan_in + offset).float().double().requires_grad_()
    parameters.append((values, layout))
    return values


def convolution(inputs, outputs, size):
    return parameter(outputs, inputs, size, size, layout=(0, 2, 3, 1)), parameter(outputs, scale=0.3)


def transposed(inputs, outputs, size):
    return parameter(inputs, outputs, size, size, layout=(2, 3, 1, 0), scale=0.3), parameter(outputs, scale=0.3)


def norm(channels):
    return parameter(channels, scale=0.3, offset=1.0), parameter(channels, scale=0.3)


def linear(inputs, outputs):
    return parameter(outputs, inputs), parameter(outputs, scale=0.3)


def save(path, loss, **inputs):
    loss.backward()
    def ours(values, layout):
        return [float(f"{x:.9g}") for x in (values.permute(layout) if layout else values).flatten().tolist()]
    made = [{"values": ours(p.detach(), layout), "gradient": ours(p.grad, layout)} for p, layout in parameters]
    with open(path, "w") as file:
        json.dump({"loss": loss.item(), **inputs, "parameters": made}, file)
        file.write("\n")
    print(path, loss.item(), sum(p.numel() for p, _ in parameters))
    parameters.clear()


def tokenizer(path):
    pixels = (2 * torch.rand(3, 3, 8, 8) - 1).float().double()
    x = F.conv2d(pixels, *convolution(3, 8, 3), padding=1)
    h = F.silu(F.group_norm(x, 4, *norm(8), 1e-6))
    h = F.silu(F.group_norm(F.conv2d(h, *convolution(8, 8, 3), padding=1), 2, *norm(8), 1e-6))
    x = x + F.conv2d(h, *convolution(8, 8, 3), padding=1)
    x = F.relu(F.conv2d(F.pad(x, (0, 1, 0, 1)), *convolution(8, 8, 3), stride=2))
    z = F.conv2d(F.max_pool2d(x, 2), *convolution(8, 6, 1))
    codebook = parameter(12, 6, scale=1.0)
    flat = z.permute(0, 2, 3, 1).reshape(-1, 6)
    codes = ((flat**2).sum(1, keepdim=True) + (codebook**2).sum(1) - 2 * flat @ codebook.T).argmin(1)
    e = codebook[codes]
    vq = F.mse_loss(e, flat.detach()) + 0.25 * F.mse_loss(flat, e.detach())
    straight = (flat + (e - flat).detach()).view(3, 2, 2, 6).permute(0, 3, 1, 2)
    y = F.relu(F.conv2d(straight, *convolution(6, 8, 3), padding=1))
    y = F.gelu(F.conv2d(F.interpolate(y, scale_factor=2), *convolution(8, 8, 3), padding=1))
    y = F.silu(F.conv_transpose2d(y, *transposed(8, 4, 4), stride=2, padding=1))
    y = F.conv2d(y, *convolution(4, 3, 3), padding=1)
    last = lambda x: [round(v, 9) for v in x.permute(0, 2, 3, 1).flatten().tolist()]
    save(path, F.mse_loss(y, pixels) + vq, pixels=last(pixels), codes=codes.tolist())


def prior(path):
    batch, tokens, width, heads, vocabulary = 2, 7, 8, 2, 11
    ids = torch.randint(vocabulary, (batch, tokens))
    targets = torch.randint(vocabulary, (batch, tokens))
    table, positions = parameter(vocabulary, width, scale=0.5), parameter(tokens, width, scale=0.5)
    x = table[ids] + positions
    for _ in range(2):
        h = F.layer_norm(x, (width,), *norm(width), 1e-5)
        qkv = F.linear(h, *linear(width, 3 * width)).view(batch, tokens, 3, heads, width // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, tokens, width)
        x = x + F.linear(mixed, *linear(width, width))
        h = F.layer_norm(x, (width,), *norm(width), 1e-5)
        x = x + F.linear(F.gelu(F.linear(h, *linear(width, 12))), *linear(12, width))
    logits = F.linear(F.layer_norm(x, (width,), *norm(width), 1e-5), *linear(width, vocabulary))
    text, image = logits[:, :3].flatten(0, 1), logits[:, 3:].flatten(0, 1)
    loss = F.cross_entropy(text, targets[:, :3].flatten()) / 8 + F.cross_entropy(image, targets[:, 3:].flatten()) * 7 / 8
    save(path, loss, ids=ids.flatten().tolist(), targets=targets.flatten().tolist())


if __name__ == "__main__":
    tokenizer(f"{sys.argv[1]}/tokenizer.json")
    prior(f"{sys.argv[1]}/prior.json")
