"""Golden gradients of CLIP's contrastive loss through both towers, computed by PyTorch in 64-bit floating point.

    python reference/clip_gradients.py runner/models/tests/golden

For models that clip_models.py made. `gradients.safetensors` holds the gradient of every parameter under its name, the
pixels, the loss before and `true_pairs` (1 where text j is true of image i: off the diagonal such a pair is no negative
and is left out of both softmaxes); the texts are the first ones of `expected.json`.
"""

import json
import sys

import torch
from safetensors.torch import save_file
from transformers import CLIPModel

PAIRS = 5


def contrastive_loss(model, pixels, ids, true_pairs):
    logits = model(pixel_values=pixels, input_ids=ids).logits_per_image
    diagonal = torch.eye(len(logits), dtype=torch.bool)
    logits = logits.masked_fill(true_pairs & ~diagonal, float("-inf"))
    target = torch.arange(len(logits))
    cross_entropy = torch.nn.functional.cross_entropy
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def make(folder, masked):
    torch.manual_seed(5)
    model = CLIPModel.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    side = model.config.vision_config.image_size
    with open(f"{folder}/expected.json") as file:
        ids = json.load(file)["ids"][:PAIRS]
    longest = max(map(len, ids))
    ids = torch.tensor([row + [model.config.text_config.vocab_size - 1] * (longest - len(row)) for row in ids])
    pixels = torch.randn(PAIRS, 3, side, side)
    true_pairs = torch.zeros(PAIRS, PAIRS, dtype=torch.bool)
    if masked:
        true_pairs[0, 2] = true_pairs[0, 0] = true_pairs[3, 1] = true_pairs[1, 3] = true_pairs[4, 0] = True
    loss = contrastive_loss(model, pixels.double(), ids, true_pairs)
    loss.backward()
    values = {name: parameter.grad.float().contiguous() for name, parameter in model.named_parameters()}
    save_file({"pixels": pixels, "loss": loss.detach().float(), "true_pairs": true_pairs.float(), **values},
              f"{folder}/gradients.safetensors")
    print(folder, loss.item(), len(values))


if __name__ == "__main__":
    make(f"{sys.argv[1]}/quick_gelu", masked=False)
    make(f"{sys.argv[1]}/mixed", masked=True)
