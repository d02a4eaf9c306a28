"""JPEGs to top-1 as people write it: `transformers` or open_clip, a DataLoader, a matrix product.

    python end_to_end.py transformers|open_clip CACHE COUNT WORKERS

Prints the share of pictures whose class is the likeliest of the folders' names, and the predictions' digest.
"""

import hashlib
import os
import sys

import torch
from PIL import Image

import prepare

BATCH = 32


class Pictures(torch.utils.data.Dataset):
    def __init__(self, folder, count, transform):
        self.classes = sorted(os.listdir(folder))
        files = [(f"{folder}/{name}/{file}", label) for label, name in enumerate(self.classes) for file in sorted(os.listdir(f"{folder}/{name}"))]
        self.files, self.transform = files[:count], transform

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        path, label = self.files[i]
        return self.transform(Image.open(path).convert("RGB")), label


def with_transformers(cache):
    from transformers import CLIPImageProcessor, CLIPTokenizerFast

    folder = f"{cache}/vit-b-32/model"
    model = prepare.load(cache, "vit-b-32")
    processor = CLIPImageProcessor.from_pretrained(folder)
    tokenizer = CLIPTokenizerFast.from_pretrained(folder)

    def texts(prompts):
        ids = tokenizer(prompts, padding="max_length", max_length=77, return_tensors="pt").input_ids
        return prepare.Texts(model)(ids)

    return lambda image: processor(image, return_tensors="pt").pixel_values[0], prepare.Images(model), texts


def with_open_clip(cache):
    import open_clip

    # The same architecture; what its weights are does not change how fast it is.
    model, _, transform = open_clip.create_model_and_transforms("ViT-B-32-quickgelu")
    tokenizer = open_clip.get_tokenizer("ViT-B-32-quickgelu")
    return transform, model.eval().encode_image, lambda prompts: model.encode_text(tokenizer(prompts))


def main(library, cache, count, workers):
    torch.set_num_threads(prepare.THREADS)
    transform, images, texts = {"transformers": with_transformers, "open_clip": with_open_clip}[library](cache)
    pictures = Pictures(f"{cache}/inputs/jpegs", int(count), transform)
    loader = torch.utils.data.DataLoader(pictures, BATCH, num_workers=int(workers), prefetch_factor=4 if int(workers) else None)
    found, right = [], 0
    with torch.inference_mode():
        classes = torch.nn.functional.normalize(texts([f"a photo of a {name}." for name in pictures.classes]), dim=-1)
        for batch, labels in loader:
            features = torch.nn.functional.normalize(images(batch), dim=-1)
            predicted = (features @ classes.T).argmax(dim=-1)
            right += int((predicted == labels).sum())
            found += predicted.tolist()
    print(right / len(found), hashlib.sha256(bytes(found)).hexdigest()[:12])


if __name__ == "__main__":
    main(*sys.argv[1:])
