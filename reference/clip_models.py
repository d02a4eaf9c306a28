"""Golden values for CLIP: small random models saved by transformers, with what they compute.

    python reference/clip_models.py runner/models/tests/golden

Each model is a folder as `save_pretrained` leaves it. Beside it lie `expected.safetensors` (pixel values, embeddings before
normalisation, logits) and `expected.json` (texts, token ids). Models differ in what implementations get wrong: patches
that do not tile the image, towers of different size, GELU and quick GELU, where text is read, number formats, shards.
"""

import json
import os
import shutil
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, Regex
from transformers import CLIPConfig, CLIPModel

MODELS = {
    # A grid of 3 × 3 patches leaves 6 rows and columns of pixels over; text is read at the largest id.
    "quick_gelu": {
        "vision": dict(image_size=30, patch_size=8, hidden_size=32, intermediate_size=96, num_hidden_layers=2,
                       num_attention_heads=2, hidden_act="quick_gelu"),
        "text": dict(hidden_size=24, intermediate_size=48, num_hidden_layers=3, num_attention_heads=3,
                     hidden_act="quick_gelu", max_position_embeddings=16, eos_token_id=2),
        "dim": 20, "dtype": torch.float32, "shard": None,
    },
    "gelu": {
        "vision": dict(image_size=28, patch_size=14, hidden_size=24, intermediate_size=50, num_hidden_layers=3,
                       num_attention_heads=4, hidden_act="gelu", layer_norm_eps=1e-3),
        "text": dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1,
                     hidden_act="gelu", layer_norm_eps=1e-6, max_position_embeddings=24),
        "dim": 16, "dtype": torch.float16, "shard": "40KB",
    },
    "mixed": {
        "vision": dict(image_size=34, patch_size=16, hidden_size=16, intermediate_size=64, num_hidden_layers=1,
                       num_attention_heads=1, hidden_act="gelu"),
        "text": dict(hidden_size=40, intermediate_size=80, num_hidden_layers=2, num_attention_heads=5,
                     hidden_act="quick_gelu", max_position_embeddings=77),
        "dim": 33, "dtype": torch.bfloat16, "shard": None,
    },
}

TEXTS = ["a cat", "", "a photo of the number: 7.", "two words", "Ghosts, it's 1999", "a much longer text that is cut where the context ends"]
MERGES = ["t h", "th e</w>", "o f</w>", "n u", "o r", "g h", "a t</w>", "c at</w>", "w or"]


def tokenizer(context):
    """CLIP's tokenizer with a vocabulary of 256 bytes, 256 bytes that end a word, a few merges and two special tokens."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in keep]
    symbols = [chr(b) for b in keep] + [chr(256 + i) for i in range(len(rest))]
    merges = [tuple(merge.split()) for merge in MERGES]
    names = symbols + [s + "</w>" for s in symbols] + ["".join(merge) for merge in merges]
    names += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {name: i for i, name in enumerate(names)}
    made = Tokenizer(models.BPE(vocab, merges, continuing_subword_prefix="", end_of_word_suffix="</w>",
                                unk_token="<|endoftext|>", fuse_unk=False))
    made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    split = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(split), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    start, end = vocab["<|startoftext|>"], vocab["<|endoftext|>"]
    special = [("<|startoftext|>", start), ("<|endoftext|>", end)]
    made.post_processor = processors.TemplateProcessing(single="<|startoftext|> $A <|endoftext|>", special_tokens=special)
    made.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    made.enable_truncation(context)
    return made, start, end


def make(name, spec, folder):
    torch.manual_seed(len(name))
    tokens, start, end = tokenizer(spec["text"]["max_position_embeddings"])
    text = {"eos_token_id": end, **spec["text"], "vocab_size": end + 1, "bos_token_id": start, "pad_token_id": end}
    config = CLIPConfig(vision_config=spec["vision"], text_config=text, projection_dim=spec["dim"], logit_scale_init_value=3.0)
    model = CLIPModel(config)
    # Initial biases are zero and norms one, which would hide mistakes.
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key != "logit_scale":
                parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.dim() > 1 else 0.3))
    shutil.rmtree(folder, ignore_errors=True)
    model.to(spec["dtype"]).save_pretrained(folder, **({"max_shard_size": spec["shard"]} if spec["shard"] else {}))
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    side = spec["vision"]["image_size"]
    tokens.no_truncation()
    tokens.save(f"{folder}/tokenizer.json")
    tokens.enable_truncation(spec["text"]["max_position_embeddings"])
    with open(f"{folder}/preprocessor_config.json", "w") as file:
        json.dump({"image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": side},
                   "resample": 3, "do_center_crop": True, "crop_size": {"height": side, "width": side}, "do_rescale": True,
                   "rescale_factor": 1 / 255, "do_normalize": True, "do_convert_rgb": True,
                   "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}, file)

    ids = [tokens.encode(text).ids for text in TEXTS]
    pixels = torch.randn(3, 3, side, side)
    longest = max(map(len, ids))
    padded = torch.tensor([row + [end] * (longest - len(row)) for row in ids])
    with torch.no_grad():
        output = model(pixel_values=pixels, input_ids=padded)
        images = model.get_image_features(pixel_values=pixels).pooler_output
        texts = model.get_text_features(input_ids=padded).pooler_output
    save_file({"pixels": pixels, "images": images.contiguous(), "texts": texts.contiguous(),
               "logits_per_image": output.logits_per_image.contiguous()}, f"{folder}/expected.safetensors")
    with open(f"{folder}/expected.json", "w") as file:
        json.dump({"texts": TEXTS, "ids": ids}, file)
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    print(name, sorted(os.listdir(folder)), f"{size / 1e3:.0f} KB")


if __name__ == "__main__":
    for name, spec in MODELS.items():
        make(name, spec, os.path.join(sys.argv[1], name))
