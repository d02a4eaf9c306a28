"""Golden values of decoding and preprocessing: small pictures of every format and mode, and what the references make of them.

    python reference/pictures.py runner/data/tests/golden/pictures

Writes the pictures and `expected.json`: by picture, the CRC-32 of `Image.convert("RGB")` and of what OpenAI's, open_clip's and
transformers' preprocessing gives, as the 8-bit steps that its values stand for. Made with Pillow 13, open_clip 3.3, clip-anytorch 2.6,
transformers 5.23 and torchvision 0.29.
"""

import json
import os
import sys
import types
import zlib

import numpy as np
import packaging.version
from PIL import Image

sys.modules["pkg_resources"] = types.ModuleType("pkg_resources")  # which clip imports and new setuptools lack
sys.modules["pkg_resources"].packaging = packaging

from clip.clip import _transform
from open_clip.transform import PreprocessCfg, image_transform_v2
from transformers import CLIPImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

OUT, SIDE = sys.argv[1], 24
os.makedirs(OUT, exist_ok=True)
MEAN, STD = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])

y, x = np.mgrid[0:41, 0:53]
rgb = Image.fromarray(np.stack([(x * 19 + y) % 256, (y * 23) % 256, (x * y // 3) % 256], -1).astype(np.uint8))
grey, palette, bilevel = rgb.convert("L"), rgb.quantize(40), rgb.convert("1")
rgba = rgb.copy()
rgba.putalpha(Image.fromarray(((x * 7 + y * 5) % 256).astype(np.uint8)))
deep = Image.fromarray((np.asarray(grey).astype(np.uint16) * 3))
cmyk = rgb.convert("CMYK")
exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
PICTURES = {
    "420.jpg": (rgb, {}), "444.jpg": (rgb, dict(subsampling=0)), "422.jpg": (rgb, dict(subsampling=1)),
    "411.jpg": (rgb, dict(subsampling="4:1:1")), "progressive.jpg": (rgb, dict(progressive=True)),
    "restart.jpg": (rgb, dict(restart_marker_blocks=2)), "rotated.jpg": (rgb, dict(exif=exif)), "grey.jpg": (grey, {}),
    "cmyk.jpg": (cmyk, {}), "cmyk-420.jpg": (cmyk, dict(subsampling=2)),
    "rgb.png": (rgb, {}), "rgba.png": (rgba, {}), "l.png": (grey, {}), "la.png": (rgba.convert("LA"), {}), "p.png": (palette, {}),
    "p-clear.png": (palette, dict(transparency=3)), "p-4.png": (rgb.quantize(11), dict(bits=4)), "1.png": (bilevel, {}), "16.png": (deep, {}),
    "l-clear.png": (grey, dict(transparency=60)), "p.gif": (palette, {}), "clear.gif": (palette, dict(transparency=1)),
    "animated.gif": (palette, dict(save_all=True, append_images=[palette.rotate(180)])), "l.gif": (grey, {}),
    "rgb.bmp": (rgb, {}), "l.bmp": (grey, {}), "p.bmp": (palette, {}), "1.bmp": (bilevel, {}),
    "lossy.webp": (rgb, {}), "alpha.webp": (rgba, dict(lossless=True)),
    "lzw.tif": (rgb, dict(compression="tiff_lzw")), "rgba.tif": (rgba, dict(compression="tiff_deflate")),
    "16.tif": (deep, dict(compression="packbits")), "p.tif": (palette, {}), "cmyk.tif": (cmyk, dict(compression="tiff_lzw")),
    "1.tif": (bilevel, {}), "rgb.ppm": (rgb.crop((3, 5, 20, 31)), {}), "l.pgm": (grey, {}), "1.pbm": (bilevel, {}),
}  # fmt: skip
LONGEST = PreprocessCfg(size=SIDE, resize_mode="longest", fill_color=90, interpolation="bilinear")
PROCESSORS = {
    "openai": _transform(SIDE),
    "longest": image_transform_v2(LONGEST, is_train=False),
    "squash": image_transform_v2(PreprocessCfg(size=(20, 31), resize_mode="squash"), is_train=False),
}
CROPS = dict(size={"shortest_edge": 20}, crop_size={"height": SIDE, "width": SIDE})
PROCESSORS["pil"] = lambda image: CLIPImageProcessorPil(**CROPS)(image, return_tensors="np")["pixel_values"][0]
PROCESSORS["torchvision"] = lambda image: CLIPImageProcessor(**CROPS)(image, return_tensors="np")["pixel_values"][0]


def steps(values):
    return np.rint((np.asarray(values).transpose(1, 2, 0) * STD + MEAN) * 255).astype(np.uint8)


def crc(pixels):
    return zlib.crc32(np.ascontiguousarray(pixels).tobytes())


expected = {}
for name, (image, options) in PICTURES.items():
    path = os.path.join(OUT, name)
    image.save(path, **options)
    expected[name] = {"rgb": crc(np.asarray(Image.open(path).convert("RGB")))}
    for key, process in PROCESSORS.items():
        expected[name][key] = crc(steps(process(Image.open(path))))
with open(os.path.join(OUT, "expected.json"), "w") as file:
    file.write(json.dumps(expected, separators=(",", ":")).replace("},", "},\n") + "\n")
