"""PyTorch or onnxruntime as a process of its own that answers lines on stdin, as `tower.rs` does for `runner`.

    python engine.py torch|onnxruntime CACHE MODEL TOWERS

TOWERS is `image`, `text` or `image,text`: what to load. When all is loaded it prints `ready`, then answers

    time image BATCH REPEATS          seconds for that many batches
    time text longest|padded REPEATS  the same for the 80 prompts, padded to the longest or to 77
    save image BATCH PATH             `saved`; embeddings as f32 in a file
    save text longest|padded PATH     the same
"""

import os
import sys
import time

import numpy

import prepare


class Torch:
    def __init__(self, cache, name, towers):
        import torch

        torch.set_num_threads(prepare.THREADS)
        torch.set_num_interop_threads(1)
        self.torch = torch
        model = prepare.load(cache, name)
        if name == "rn50":
            model = model.to(memory_format=torch.channels_last)  # faster with oneDNN
            self.format = torch.channels_last
        else:
            self.format = torch.contiguous_format
        self.towers = {"image": prepare.Images(model), "text": prepare.Texts(model)}

    def input(self, tower, array):
        tensor = self.torch.from_numpy(array)
        return tensor.contiguous(memory_format=self.format) if tower == "image" else tensor

    def run(self, tower, tensor):
        with self.torch.inference_mode():
            return self.towers[tower](tensor).numpy()


class Onnxruntime:
    def __init__(self, cache, name, towers):
        import json

        import onnxruntime

        self.sessions = {}
        for tower in towers:
            folder = f"{cache}/{name}/onnx-{tower}"
            with open(f"{folder}/chosen.json") as file:
                path = f"{folder}/{json.load(file)['path']}"
            self.sessions[tower] = onnxruntime.InferenceSession(path, prepare.session_options(), providers=["CPUExecutionProvider"])

    def input(self, tower, array):
        return array

    def run(self, tower, array):
        return self.sessions[tower].run(None, {"pixels" if tower == "image" else "ids": array})[0]


def main(engine, cache, name, towers):
    engine = {"torch": Torch, "onnxruntime": Onnxruntime}[engine](cache, name, towers.split(","))
    print("ready", flush=True)
    for line in sys.stdin:
        what, tower, size, last = line.split(maxsplit=3)
        if tower == "image":
            count = int(size)
            array = numpy.fromfile(f"{cache}/inputs/pixels.f32", numpy.float32, count * 3 * 224 * 224).reshape(count, 3, 224, 224)
        else:
            array = numpy.array(prepare.prompts(cache, size), numpy.int64)
        array = engine.input(tower, array)
        if what == "save":
            engine.run(tower, array).astype(numpy.float32).tofile(last.strip())
            print("saved", flush=True)
        else:
            start = time.perf_counter()
            for _ in range(int(last)):
                engine.run(tower, array)
            print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    if os.environ.get("COMPARE_ONNXRUNTIME"):  # a copy without AVX-512, see `without_avx512.py`
        sys.path.insert(0, os.environ["COMPARE_ONNXRUNTIME"])
    main(*sys.argv[1:])
