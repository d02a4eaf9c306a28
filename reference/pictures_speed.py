"""What a picture costs on its way into a model, on one thread: the figures beside `cargo bench -p runner-data --bench pictures`.

    python reference/pictures_speed.py FOLDER

Prints milliseconds a picture, medians of five rounds: decoding with Pillow, then Pillow's resize with torchvision's transforms (as
OpenAI's and open_clip's code do), then `transformers`' processor over torchvision.
"""

import io
import os
import statistics
import sys
import time

import numpy
import torch
from PIL import Image
from torchvision import io as torchvision_io
from torchvision import transforms
from transformers import CLIPImageProcessorFast

torch.set_num_threads(1)
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
names = sorted(name for name in os.listdir(sys.argv[1]) if name.lower().endswith(".jpeg"))[:200]
files = [open(os.path.join(sys.argv[1], name), "rb").read() for name in names]
pictures = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
tensors = [torch.from_numpy(numpy.array(picture)).permute(2, 0, 1) for picture in pictures]
openai = transforms.Compose(
    [
        transforms.Resize(224, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
)
fast = CLIPImageProcessorFast()


def torchvision_decode(file):
    data = torch.frombuffer(bytearray(file), dtype=torch.uint8)
    return torchvision_io.decode_jpeg(data, mode=torchvision_io.ImageReadMode.RGB)


steps = {
    "decode, Pillow": lambda: [Image.open(io.BytesIO(file)).convert("RGB") for file in files],
    "decode, torchvision": lambda: [torchvision_decode(file) for file in files],
    "rest, torchvision on Pillow": lambda: [openai(picture) for picture in pictures],
    "rest, transformers (fast), one by one": lambda: [fast(tensor, return_tensors="pt") for tensor in tensors],
    "rest, transformers (fast), batches of 32": lambda: [
        fast(tensors[i : i + 32], return_tensors="pt") for i in range(0, len(tensors), 32)
    ],
}
times = {name: [] for name in steps}
for _ in range(5):
    for name, step in steps.items():
        begun = time.perf_counter()
        try:
            step()
        except RuntimeError as error:
            print(name, error)
        times[name].append(time.perf_counter() - begun)
for name, took in times.items():
    print(f"{name:42} {statistics.median(took) * 1000 / len(files):6.3f} ms a picture")
