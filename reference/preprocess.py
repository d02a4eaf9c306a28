"""Golden values of resizing and preprocessing: Pillow's resize, transformers' CLIPImageProcessorPil, and its torchvision twin.

    python reference/preprocess.py > runner/data/tests/golden/preprocess.json

Pictures are made from a formula that the Rust test repeats, and results are kept as CRC-32 of their bytes.
Made with Pillow 13.0, transformers 5.23, torch 2.15, torchvision 0.29.
"""

import json
import zlib

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tvF
from transformers import CLIPImageProcessor, CLIPImageProcessorPil


def picture(height, width, channels):
    y, x, c = np.mgrid[0:height, 0:width, 0:channels]
    values = (x * 31 + y * 17 + c * 101 + (x * y) % 97 * 5 + ((x // 3) * (y // 5)) % 13 * 19) % 256
    # Blocks of black and white, so that overshoots are clipped.
    values = np.where((x // 7 + y // 7) % 5 == 0, 255, np.where((x // 7 + y // 7) % 5 == 1, 0, values))
    return values.astype(np.uint8)


def crc(array):
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


def image(pixels):
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


SIZES = [(1, 1), (1, 9), (9, 1), (2, 3), (28, 28), (31, 57), (64, 48), (97, 101), (300, 17), (5, 211), (240, 320)]
TARGETS = [(1, 1), (7, 5), (28, 28), (33, 64), (224, 224), (3, 150)]
INTERPOLATION = {0: "nearest", 2: "bilinear", 3: "bicubic"}


def resizes():
    for i, (height, width) in enumerate(SIZES):
        for j, (to_height, to_width) in enumerate(TARGETS):
            for resample in range(6):
                channels = 1 if (i + j + resample) % 3 == 0 else 3
                pixels = picture(height, width, channels)
                case = dict(height=height, width=width, channels=channels, to_height=to_height, to_width=to_width)
                resized = np.asarray(image(pixels).resize((to_width, to_height), Image.Resampling(resample)))
                yield dict(case, resample=resample, backend="pil", crc=crc(resized))
                # torchvision has no box and Hamming, and its nearest is another.
                if resample in (2, 3) and channels == 3:
                    tensor = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()[None]
                    mode = tvF.InterpolationMode(INTERPOLATION[resample])
                    try:
                        resized = tvF.resize(tensor, [to_height, to_width], interpolation=mode, antialias=True)
                    except RuntimeError:
                        continue  # torch 2.15 fails on sides of one pixel
                    yield dict(case, resample=resample, backend="torchvision", crc=crc(resized[0].permute(1, 2, 0).numpy()))


def processed():
    configs = [
        dict(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}),
        dict(size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30}),
        dict(size={"shortest_edge": 40}, crop_size={"height": 57, "width": 33}),
        dict(size={"height": 33, "width": 21}, do_center_crop=False, resample=2),
        dict(do_resize=False, crop_size={"height": 64, "width": 65}, image_mean=[0.5, 0.4, 0.3], image_std=[0.5, 0.5, 0.25]),
        dict(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, do_normalize=False),
    ]
    for config in configs:
        for height, width in SIZES[:-1]:
            for backend, make in [("pil", CLIPImageProcessorPil), ("torchvision", CLIPImageProcessor)]:
                try:
                    values = make(**config)(image(picture(height, width, 3)), return_tensors="np")["pixel_values"]
                except RuntimeError:
                    continue
                values = np.asarray(values)[0]
                case = dict(config=config, height=height, width=width, backend=backend, shape=list(values.shape))
                flat = values.astype(np.float32).ravel()
                yield dict(case, crc=crc(flat), first=[float(value) for value in flat[:: max(1, len(flat) // 4)][:4]])


print(json.dumps({"resize": list(resizes()), "process": list(processed())}, separators=(",", ":")).replace("},{", "},\n{"))
