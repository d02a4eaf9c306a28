"""Golden values of zero-shot and retrieval metrics: CLIP_benchmark's own functions, PyTorch's cross-entropy.

    python reference/metrics.py > runner/stages/tests/golden/metrics.json

Features are made from a formula that the Rust test repeats; every one is exact in f32.
Made with clip_benchmark 1.6.2 (its mean_per_class_recall is scikit-learn's), torch 2.15.
"""

import json

import numpy as np
import torch
import torch.nn.functional as F
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval

# Its `accuracy` calls float() on an array of one element, which NumPy 2.5 refuses.
zeroshot_classification.float = lambda value: np.asarray(value, dtype=np.float64).item()


def noise(rows, dim, salt):
    """Multiples of 1/1024 in [-1, 1) that look random: a 32-bit mix of the place."""
    x = np.arange(rows * dim, dtype=np.uint64) + np.uint64(salt) * np.uint64(1_000_003)
    x = (x * np.uint64(2654435761)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(15)
    x = (x * np.uint64(2246822519)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(13)
    return ((x % np.uint64(2048)).astype(np.float64) - 1024).reshape(rows, dim).astype(np.float32) / np.float32(1024)


class Fixed:
    """A model whose features are given: inputs are row numbers."""

    def __init__(self, images, texts):
        self.images, self.texts = torch.from_numpy(images), torch.from_numpy(texts)

    def encode_image(self, rows):
        return self.images[rows]

    def encode_text(self, rows):
        return self.texts[rows]


def calibration_error(probabilities, target, bins=15):
    """Guo et al. 2017, equation 3, with bins (lower, upper]."""
    confidence, predicted = probabilities.max(1)
    right = predicted.eq(target).float()
    edges, error = torch.linspace(0, 1, bins + 1), 0.0
    for lower, upper in zip(edges[:-1], edges[1:]):
        inside = confidence.gt(lower) & confidence.le(upper)
        if inside.any():
            error += float(inside.float().mean() * (right[inside].mean() - confidence[inside].mean()).abs())
    return error


def classification(rows, classes, dim, templates):
    centres = noise(classes, dim, 1)
    label = np.arange(rows) * 7 % classes
    images = centres[label] / 2 + noise(rows, dim, 2)
    texts = np.repeat(centres, templates, 0) / 2 + noise(classes * templates, dim, 3)
    model = Fixed(images, texts)
    tokenizer = lambda prompts: torch.tensor([int(prompt) for prompt in prompts])
    names = [str(c * templates) for c in range(classes)]
    # Templates add to the row number of the class's first prompt.
    prompts = {name: [str(int(name) + t) for t in range(templates)] for name in names}
    batches = [(torch.arange(i, min(i + 64, rows)), torch.from_numpy(label[i : i + 64])) for i in range(0, rows, 64)]

    class Loader(list):
        dataset = type("Dataset", (), {"classes": names})

    metrics = zeroshot_classification.evaluate(model, Loader(batches), tokenizer, names, prompts, "cpu", amp=False)
    classifier = zeroshot_classification.zero_shot_classifier(model, tokenizer, names, prompts, "cpu", amp=False)
    logits, target = zeroshot_classification.run_classification(model, classifier, batches, "cpu", amp=False)
    probabilities = logits.double().softmax(1)
    # Not scikit-learn's log_loss, which clips probabilities at 2.2e-16 and so calls every loss above 36 36.
    metrics["log_loss"] = float(F.cross_entropy(logits.double(), target))
    metrics["ece"] = calibration_error(probabilities.float(), target)
    if np.isnan(metrics["acc5"]):
        del metrics["acc5"]
    return dict(rows=rows, classes=classes, dim=dim, templates=templates, metrics=metrics)


def retrieval(images, captions, dim):
    """`captions` is how many the images have, in turn."""
    counts = [captions[i % len(captions)] for i in range(images)]
    owner = np.repeat(np.arange(images), counts)
    pictures = noise(images, dim, 4)
    texts = pictures[owner] / 2 + noise(len(owner), dim, 5)
    starts = np.concatenate([[0], np.cumsum(counts)])
    model = Fixed(pictures, texts)
    tokenizer = lambda prompts: torch.tensor([int(prompt) for prompt in prompts])
    size = 16
    loader = [
        (torch.arange(i, min(i + size, images)), [[str(t) for t in range(starts[j], starts[j + 1])] for j in range(i, min(i + size, images))])
        for i in range(0, images, size)
    ]
    metrics = zeroshot_retrieval.evaluate(model, loader, tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10])
    return dict(images=images, captions=captions, dim=dim, metrics=metrics)


if __name__ == "__main__":
    torch.manual_seed(0)
    print(json.dumps({
        "classification": [
            classification(1000, 12, 32, 1),
            classification(700, 37, 48, 7),
            classification(300, 5, 16, 3),
            classification(200, 4, 16, 2),
        ],
        "retrieval": [
            retrieval(60, [1], 16),
            retrieval(120, [5], 24),
            retrieval(97, [1, 3, 2, 5], 20),
        ],
    }, indent=1))
