"""Golden values for convolutional image towers: small random models saved by the reference implementations.

    python reference/image_towers.py runner/models/tests/golden

`modified_resnet`: CLIP with OpenAI's modified ResNet, by `clip` (the package clip-anytorch); text tensors get Hugging Face's
names. `resnet_basic`, `resnet_bottleneck`: torchvision's ResNet. `efficientnet_lite`: by `efficientnet_lite_pytorch`.
Each is a folder with `config.json`, `preprocessor_config.json`, `model.safetensors`, and `expected.safetensors` with pixels and
what the reference computes from them. Widths are tiny and sides odd; statistics of batch normalisation are random.
"""

import json
import os
import shutil
import sys
import types

import torch
from safetensors.torch import save_file

sys.modules.setdefault("pkg_resources", types.SimpleNamespace(packaging=__import__("packaging.version")))


def shake(model):
    """Initial biases are zero, norms one and statistics those of nothing, which would hide mistakes."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.copy_(torch.rand_like(value) + 0.5)
            elif name.endswith("running_mean"):
                value.copy_(torch.randn_like(value) * 0.2)
            elif value.dtype.is_floating_point and value.dim() == 1:
                value.add_(torch.randn_like(value) * 0.2)
    return model.float().eval()


def preprocessor(side):
    return {"image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": side}, "resample": 3,
            "do_center_crop": True, "crop_size": {"height": side, "width": side}, "do_rescale": True,
            "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}


def write(folder, config, tensors, expected, side):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for name, value in [("config", config), ("preprocessor_config", preprocessor(side))]:
        with open(f"{folder}/{name}.json", "w") as file:
            json.dump(value, file)
    tensors = {k: v.contiguous() for k, v in tensors.items() if v.dtype.is_floating_point}
    save_file({k: v.half() for k, v in tensors.items()}, f"{folder}/model.safetensors")
    expected["pixels"] = expected["pixels"].half()
    save_file({k: v.contiguous() for k, v in expected.items()}, f"{folder}/expected.safetensors")
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    print(os.path.basename(folder), f"{size / 1e3:.0f} KB")


def halved(model):
    """Weights that half precision holds exactly, so that the files may be small."""
    model.load_state_dict({k: v.half().to(v.dtype) if v.dtype.is_floating_point else v for k, v in model.state_dict().items()})
    return model


def hugging_face(state):
    """OpenAI's names of a text tower as Hugging Face's."""
    out = {"logit_scale": state["logit_scale"], "text_projection.weight": state["text_projection"].T,
           "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
           "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
           "text_model.final_layer_norm.weight": state["ln_final.weight"],
           "text_model.final_layer_norm.bias": state["ln_final.bias"]}
    names = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1",
             "mlp.c_proj": "mlp.fc2"}
    for key, value in state.items():
        if key.startswith("visual."):
            out[key] = value
        if not key.startswith("transformer.resblocks."):
            continue
        layer, rest = key.removeprefix("transformer.resblocks.").split(".", 1)
        name = f"text_model.encoder.layers.{layer}"
        if rest.startswith("attn.in_proj_"):
            kind = rest.removeprefix("attn.in_proj_")
            for part, piece in zip("qkv", value.chunk(3)):
                out[f"{name}.self_attn.{part}_proj.{kind}"] = piece
        else:
            module, kind = rest.rsplit(".", 1)
            out[f"{name}.{names[module]}.{kind}"] = value
    return out


def modified_resnet(folder):
    from clip.model import CLIP
    import clip_models
    tokens, start, end = clip_models.tokenizer(16)
    side, layers, width, dim, text = 64, (2, 1, 1, 2), 4, 12, 16
    model = halved(shake(CLIP(dim, side, layers, width, None, 16, end + 1, text, 2, 2)))
    model.logit_scale.data.fill_(3.0)
    ids = [tokens.encode(t).ids for t in clip_models.TEXTS]
    padded = torch.zeros(len(ids), 16, dtype=torch.long)
    for row, own in zip(padded, ids):
        row[:len(own)] = torch.tensor(own)
    pixels = torch.randn(2, 3, side, side).half().float()
    with torch.no_grad():
        images, texts = model.encode_image(pixels), model.encode_text(padded)
        logits, _ = model(pixels, padded)
    config = {"model_type": "clip", "projection_dim": dim,
              "text_config": {"hidden_size": text, "intermediate_size": 4 * text, "num_attention_heads": 2, "num_hidden_layers": 2,
                              "hidden_act": "quick_gelu", "max_position_embeddings": 16, "vocab_size": end + 1, "eos_token_id": 2},
              "vision_config": {"layers": layers, "width": width, "num_attention_heads": 32 * width // 64, "image_size": side}}
    write(folder, config, hugging_face(model.state_dict()),
          {"pixels": pixels, "images": images, "texts": texts, "logits_per_image": logits}, side)
    tokens.no_truncation()
    tokens.save(f"{folder}/tokenizer.json")
    with open(f"{folder}/expected.json", "w") as file:
        json.dump({"texts": clip_models.TEXTS, "ids": ids}, file)


def narrow(model, divisor):
    """A model with fewer channels everywhere; its modules are made again."""
    for name, module in list(model.named_modules()):
        for child_name, child in list(module.named_children()):
            def small(n):
                return n if n == 3 else max(1, n // divisor)
            if isinstance(child, torch.nn.Conv2d):
                new = torch.nn.Conv2d(small(child.in_channels), small(child.out_channels), child.kernel_size, child.stride,
                                      child.padding, groups=small(child.groups) if child.groups > 1 else 1, bias=False)
                if hasattr(child, "static_padding"):
                    child.weight = new.weight
                    child.groups, child.in_channels, child.out_channels = new.groups, new.in_channels, new.out_channels
                    continue
                setattr(module, child_name, new)
            elif isinstance(child, torch.nn.BatchNorm2d):
                setattr(module, child_name, torch.nn.BatchNorm2d(small(child.num_features), eps=child.eps))
            elif isinstance(child, torch.nn.Linear):
                setattr(module, child_name, torch.nn.Linear(small(child.in_features), child.out_features))
    return model


def features(model, pooling, pixels):
    found = []
    hook = pooling.register_forward_hook(lambda _, __, out: found.append(out.flatten(1)))
    with torch.no_grad():
        logits = model(pixels)
    hook.remove()
    return {"pixels": pixels, "features": found[0], "logits": logits}


def resnet(folder, block, side, layers):
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
    kind = {"basic": BasicBlock, "bottleneck": Bottleneck}[block]
    model = halved(shake(narrow(ResNet(kind, layers, num_classes=5), 16)))
    config = {"model_type": "torchvision_resnet", "image_size": side, "block": block, "layers": layers, "width": 4,
              "id2label": {str(i): name for i, name in enumerate(["cat", "dog", "cup", "car", "sky"])}}
    write(folder, config, model.state_dict(), features(model, model.avgpool, torch.randn(2, 3, side, side).half().float()), side)


def efficientnet_lite(folder):
    from efficientnet_lite_pytorch import EfficientNet
    side = 50
    model = EfficientNet.from_name("efficientnet-lite0", image_size=side, num_classes=7)
    model = halved(shake(narrow(model, 8)))
    config = {"model_type": "efficientnet_lite", "image_size": side, "stem": 4, "channels": [2, 3, 5, 10, 14, 24, 40],
              "head": 160, "num_labels": 7}
    write(folder, config, model.state_dict(), features(model, model._avg_pooling, torch.randn(2, 3, side, side).half().float()), side)


if __name__ == "__main__":
    torch.manual_seed(0)
    folder = sys.argv[1]
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    modified_resnet(f"{folder}/modified_resnet")
    resnet(f"{folder}/resnet_basic", "basic", 45, [2, 1, 1, 1])
    resnet(f"{folder}/resnet_bottleneck", "bottleneck", 64, [1, 2, 1, 1])
    efficientnet_lite(f"{folder}/efficientnet_lite")
