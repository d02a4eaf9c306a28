"""Small files of every format that `runner` reads, which fuzzing starts from: `python reference/fuzz_seeds.py fuzz/seeds`.

Made with Pillow 13, torch 2.15, safetensors 0.8 and pyarrow 26.
"""

import gzip
import io
import json
import os
import struct
import sys
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import safetensors.numpy
import torch
from PIL import Image

OUT = sys.argv[1]


def put(target, name, data):
    os.makedirs(f"{OUT}/{target}", exist_ok=True)
    with open(f"{OUT}/{target}/{name}", "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


y, x = np.mgrid[0:11, 0:13]
rgb = Image.fromarray(np.stack([x * 19, y * 23, x * y], -1).astype(np.uint8))
grey, palette = rgb.convert("L"), rgb.quantize(7)
rgba = rgb.copy()
rgba.putalpha(grey)
deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 100)
pictures = {
    "420.jpg": saved(rgb, "JPEG"),
    "444.jpg": saved(rgb, "JPEG", subsampling=0, restart_marker_blocks=1),
    "progressive.jpg": saved(rgb, "JPEG", progressive=True),
    "grey.jpg": saved(grey, "JPEG"),
    "cmyk.jpg": saved(rgb.convert("CMYK"), "JPEG", subsampling=2),
    "rgb.png": saved(rgb, "PNG"),
    "rgba.png": saved(rgba, "PNG"),
    "la.png": saved(rgba.convert("LA"), "PNG"),
    "p.png": saved(palette, "PNG", transparency=2, bits=4),
    "1.png": saved(rgb.convert("1"), "PNG"),
    "16.png": saved(deep, "PNG"),
    "p.gif": saved(palette, "GIF", transparency=1),
    "animated.gif": saved(palette, "GIF", save_all=True, append_images=[palette.rotate(90)]),
    "rgb.bmp": saved(rgb, "BMP"),
    "p.bmp": saved(palette, "BMP"),
    "1.bmp": saved(rgb.convert("1"), "BMP"),
    "lossy.webp": saved(rgba, "WEBP"),
    "lossless.webp": saved(rgba, "WEBP", lossless=True),
    "rgb.tif": saved(rgb, "TIFF"),
    "p.tif": saved(palette, "TIFF", compression="tiff_lzw"),
    "cmyk.tif": saved(rgb.convert("CMYK"), "TIFF", compression="tiff_adobe_deflate"),
    "16.tif": saved(deep, "TIFF", compression="packbits"),
    "rgb.ppm": saved(rgb, "PPM"),
    "1.pbm": saved(rgb.convert("1"), "PPM"),
}
for i, (name, data) in enumerate(pictures.items()):
    put("image", name, data + bytes([i % 9]))

clip = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}}
put("preprocess", "clip.json", json.dumps({**clip, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": True}))
put("preprocess", "fast.json", json.dumps({"image_processor": {**clip, "backend": "torchvision", "rescale_factor": 0.0039}}))
put("preprocess", "convnext.json", json.dumps({"image_processor_type": "ConvNextImageProcessor", "size": 32, "crop_pct": 0.9}))
put("preprocess", "open_clip.json", json.dumps({"size": [24, 32], "resize_mode": "longest", "fill_color": 9, "interpolation": "bilinear"}))

tensors = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float16([1, 2]), "c": np.int64([[1]])}
put("safetensors", "three.safetensors", safetensors.numpy.save(tensors, {"format": "pt"}))
for name, options in [("zip.pt", {}), ("legacy.pt", {"_use_new_zipfile_serialization": False})]:
    out = io.BytesIO()
    state = {"visual.conv1.weight": torch.ones(2, 3, 1, 1), "logit_scale": torch.tensor(4.6), "half": torch.ones(2).half()}
    torch.save({"state_dict": state, "epoch": 3}, out, **options)
    put("pickle", name, out.getvalue())
tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
config = {"model_type": "clip", "projection_dim": 8, "vision_config": {**tower, "image_size": 8, "patch_size": 4}}
put("config", "clip.json", json.dumps({**config, "text_config": {**tower, "vocab_size": 514, "max_position_embeddings": 8}}))

jpeg = pictures["420.jpg"]
shard = io.BytesIO()
with tarfile.open(fileobj=shard, mode="w") as file:
    for name, data in [("0001.jpg", jpeg), ("0001.cls", b"3"), ("0001.txt", b"a cat"), ("0002.jpg", jpeg), ("0002.cls", b"1")]:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        file.addfile(member, io.BytesIO(data))
put("tar", "two.tar", shard.getvalue())
put("tar", "two.tar.gz", gzip.compress(shard.getvalue(), mtime=0))
table = pa.table({"image": [{"bytes": jpeg, "path": "a.jpg"}] * 2, "label": [0, 1], "caption": ["a cat", None]})
for compression in ["snappy", "zstd"]:
    out = io.BytesIO()
    pa.parquet.write_table(table, out, compression=compression)
    put("parquet", f"{compression}.parquet", out.getvalue())
put("csv", "three.csv", 'id,label,text\n1,cat,"a ""big"" cat"\n2,dog,"two\nlines"\n3,,x\n')
put("jsonl", "three.jsonl", '{"id": 1, "label": "cat", "x": [1.5, 2]}\n{"id": 2, "label": null, "x": [1, 2]}\n\n{"id": 3, "text": "\\u00e9"}\n')
idx = struct.pack(">4B3I", 0, 0, 8, 3, 2, 3, 4) + bytes(range(24))
put("idx", "pixels", idx)
put("idx", "labels.gz", gzip.compress(struct.pack(">4BI", 0, 0, 8, 1, 3) + b"\x01\x02\x03", mtime=0))
put("cifar", "one", bytes([3]) + bytes(i % 251 for i in range(3072)))
put("pipeline", "eval.yaml", """version: 1
name: eval
params: {n: {type: integer, default: 3}, model: {type: model, default: "builtin:mini-clip"}}
stages:
  data: {uses: dataset, with: {source: "mnist:test", limit: "${{ params.n }}"}}
  image: {uses: encode, inputs: {rows: data, model: "${{ params.model }}"}, matrix: {k: [1, 2]}}
  prompts: {uses: prompts, with: {templates: ["a {}."]}, inputs: data.classes, when: "${{ params.n > 2 }}"}
gates: {top1: {metric: metrics.top1, min: 0.9}}
""")
put("pipeline", "anchors.yaml", "a: &a [1, 2]\nb: [*a, *a]\n")
put("tokenizer", "words", "it's “naïve” cafÃ© &amp;eacute; \x1b[31m <|startoftext|> ﬁ ＡＢ 9 👩\u200d👧")
small = {"<|startoftext|>": 3, "<|endoftext|>": 4, "a": 0, "a</w>": 1, "b</w>": 2, "ab</w>": 5}
model = {"type": "BPE", "unk_token": "<|endoftext|>", "end_of_word_suffix": "</w>", "continuing_subword_prefix": "", "vocab": small, "merges": ["a b</w>"]}
put("tokenizer", "tokenizer.json", json.dumps({"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "model": model}))
