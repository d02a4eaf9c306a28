"""Small random CLIP checkpoints in the formats that people have, saved by their reference implementations, with what these compute.

    python reference/checkpoints.py runner/models/tests/golden

`openai_vit.pt` and `openai_resnet.pt` are TorchScript archives in half precision, as OpenAI published its models (package
`clip-anytorch`); `open_clip_*` are folders as open_clip keeps them on the hub; `pytorch_legacy.bin` and `pytorch_shards` are the
weights of the golden model `mixed` (bfloat16), by `torch.save`'s old format and as an index of parts. Beside each lies its `expected.safetensors`:
pixels and images, ids (as floats, padded with 0) and texts.
"""

import json
import os
import sys
import types

import packaging
import packaging.version
import torch
from safetensors.torch import load_file, save_file

sys.modules["pkg_resources"] = types.ModuleType("pkg_resources")
sys.modules["pkg_resources"].packaging = packaging

import open_clip  # noqa: E402
from clip.model import CLIP, build_model, convert_weights  # noqa: E402

OUT = sys.argv[1]
VOCAB = 48


def randomised(model, seed):
    """Initial biases are zero and norms one, which would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "logit_scale" not in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * (0.05 if parameter.dim() > 1 else 0.3))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.1)
            if name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return model.eval()


def expected(model, side, context, file):
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randn(2, 3, side, side, generator=generator)
    ids = torch.zeros(3, context, dtype=torch.long)
    for row, length in enumerate((context, 3, context // 2)):
        ids[row, 0] = VOCAB - 2
        ids[row, 1:length - 1] = torch.randint(1, VOCAB - 2, (length - 2,), generator=generator)
        ids[row, length - 1] = VOCAB - 1
    with torch.no_grad():
        images, texts = model.encode_image(pixels), model.encode_text(ids)
    save_file({"pixels": pixels, "images": images.float().contiguous(), "ids": ids.float(),
               "texts": texts.float().contiguous()}, file)


def openai(name, side, layers, width, patch):
    torch.manual_seed(1)
    model = CLIP(embed_dim=24, image_resolution=side, vision_layers=layers, vision_width=width, vision_patch_size=patch,
                 context_length=12, vocab_size=VOCAB, transformer_width=64, transformer_heads=1, transformer_layers=1)
    model = randomised(model, 2)
    convert_weights(model)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    # Half precision cannot be traced on a CPU, so the trace is made in single precision and its weights halved again.
    model.float()
    traced = torch.jit.trace(model, (torch.randn(1, 3, side, side), torch.zeros(1, 12, dtype=torch.long)), check_trace=False)
    for key, parameter in traced.named_parameters():
        parameter.data = state[key]
    torch.jit.save(traced, f"{OUT}/{name}.pt")
    loaded = torch.jit.load(f"{OUT}/{name}.pt").state_dict()
    expected(build_model(loaded).float(), side, 12, f"{OUT}/{name}.expected.safetensors")
    print(name, os.path.getsize(f"{OUT}/{name}.pt"))


def of_open_clip(name, config, safetensors):
    torch.manual_seed(3)
    folder = f"{OUT}/{name}"
    os.makedirs(folder, exist_ok=True)
    made = dict(config)
    custom = made.pop("custom_text", False)
    kind = open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP
    model = randomised(kind(**made), 4)
    side = config["vision_cfg"]["image_size"]
    with open(f"{folder}/open_clip_config.json", "w") as file:
        json.dump({"model_cfg": config, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
                                                            "interpolation": "bicubic", "resize_mode": "squash"}}, file, indent=1)
    state = {key: value.contiguous() for key, value in model.state_dict().items() if "attn_mask" not in key}
    if safetensors:
        save_file(state, f"{folder}/open_clip_model.safetensors")
    else:
        torch.save(state, f"{folder}/open_clip_pytorch_model.bin")
    expected(model, side, config["text_cfg"]["context_length"], f"{folder}/expected.safetensors")
    print(name, {file: os.path.getsize(f"{folder}/{file}") for file in os.listdir(folder)})


def of_transformers():
    state = load_file(f"{OUT}/mixed/model.safetensors")
    torch.save(state, f"{OUT}/pytorch_legacy.bin", _use_new_zipfile_serialization=False)
    folder = f"{OUT}/pytorch_shards"
    os.makedirs(folder, exist_ok=True)
    names = sorted(state)
    parts = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, part in parts.items():
        torch.save({name: state[name] for name in part}, f"{folder}/{file}")
    with open(f"{folder}/pytorch_model.bin.index.json", "w") as file:
        json.dump({"metadata": {}, "weight_map": {name: part for part in parts for name in parts[part]}}, file)


openai("openai_vit", 16, 1, 64, 8)
openai("openai_resnet", 64, (1, 2, 1, 1), 2, None)
of_open_clip("open_clip_vit", {
    "embed_dim": 20, "quick_gelu": True,
    "vision_cfg": {"image_size": 18, "layers": 2, "width": 32, "head_width": 16, "mlp_ratio": 1.3, "patch_size": 8,
                   "ls_init_value": 0.5, "patch_dropout": 0.5},
    "text_cfg": {"context_length": 10, "vocab_size": VOCAB, "width": 24, "heads": 3, "layers": 2, "ls_init_value": 0.7},
}, True)
of_open_clip("open_clip_custom", {
    "embed_dim": 12, "custom_text": True,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 2], "width": 2, "patch_size": None},
    "text_cfg": {"context_length": 9, "vocab_size": VOCAB, "width": 32, "heads": 2, "layers": 1, "mlp_ratio": 2.0},
}, False)
of_transformers()
