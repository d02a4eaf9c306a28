"""Makes what the comparison needs, once, in a cache folder: models with random weights of the real sizes, saved by the
reference implementations; their ONNX graphs; pixels, prompts and JPEGs.

    python prepare.py CACHE vit-b-32 rn50 jpegs

Weights do not change how fast a model is, and nothing has to be downloaded.
"""

import gc
import json
import os
import sys
import time

import numpy
import torch

THREADS = 2

VITS = {
    "vit-b-32": {},  # the defaults of `CLIPConfig`
    "vit-l-14": {
        "vision": dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14),
        "text": dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12),
        "dim": 768,
    },
}
MODELS = [*VITS, "rn50"]


def once(path, make):
    """Calls `make` with a path to write to, unless that was done."""
    if os.path.exists(path):
        return
    print(f"making {path}", file=sys.stderr, flush=True)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    started = path + ".part"
    make(started)
    os.rename(started, path)


def reference(cache, name):
    """What `runner` is given: a model reference."""
    return f"open_clip:RN50-quickgelu={cache}/rn50/weights.pt" if name == "rn50" else f"{cache}/{name}/model"


def save_vit(name, folder):
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    torch.manual_seed(0)
    spec = VITS[name]
    ends = dict(bos_token_id=49406, eos_token_id=49407, pad_token_id=49407)
    config = CLIPConfig(vision_config={"patch_size": 32, **spec.get("vision", {})}, text_config={**spec.get("text", {}), **ends},
                        projection_dim=spec.get("dim", 512))
    model = CLIPModel(config)
    with torch.no_grad():  # biases and norms of a trained model are not zeros and ones
        for key, value in model.named_parameters():
            if value.dim() == 1:
                value.add_(torch.randn_like(value) * 0.02)
    model.save_pretrained(folder)
    merges = SimpleTokenizer()
    pairs = list(merges.bpe_ranks)
    vocab = {t.replace("<start_of_text>", "<|startoftext|>").replace("<end_of_text>", "<|endoftext|>"): i
             for t, i in merges.encoder.items()}
    CLIPTokenizer(vocab=vocab, merges=pairs, model_max_length=77).save_pretrained(folder)
    with open(f"{folder}/preprocessor_config.json", "w") as file:
        json.dump({"image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": 224}, "resample": 3,
                   "do_center_crop": True, "crop_size": {"height": 224, "width": 224}, "do_rescale": True, "rescale_factor": 1 / 255,
                   "do_normalize": True, "do_convert_rgb": True, "image_mean": [0.48145466, 0.4578275, 0.40821073],
                   "image_std": [0.26862954, 0.26130258, 0.27577711]}, file)


def save_rn50(path):
    import open_clip

    torch.manual_seed(0)
    torch.save(open_clip.create_model("RN50-quickgelu").state_dict(), path)


class Images(torch.nn.Module):
    """An image tower as a module of its own: pixels to embeddings."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixels):
        if hasattr(self.model, "encode_image"):
            return self.model.encode_image(pixels)
        return self.model.visual_projection(self.model.vision_model(pixel_values=pixels).pooler_output)


class Texts(torch.nn.Module):
    """A text tower as a module of its own: token ids, padded, to embeddings."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        if hasattr(self.model, "encode_text"):
            return self.model.encode_text(ids)
        return self.model.text_projection(self.model.text_model(input_ids=ids).pooler_output)


def load(cache, name, attention="sdpa"):
    """The model in PyTorch, ready for inference."""
    if name == "rn50":
        import open_clip

        model = open_clip.create_model("RN50-quickgelu")
        model.load_state_dict(torch.load(f"{cache}/rn50/weights.pt"))
        return model.eval()
    from transformers import CLIPModel

    return CLIPModel.from_pretrained(f"{cache}/{name}/model", dtype=torch.float32, attn_implementation=attention).eval()


def towers(name):
    return ["image", "text"] if name == "vit-b-32" else ["image"]


def exports(name):
    """Which attention and which exporters to try. Of one attention the exporters leave a pattern that onnxruntime's optimizer knows, of the
    other one operation. Each graph of the large model takes more than a gigabyte: it gets what won for the small one."""
    if name == "rn50":
        return ["sdpa"], ["dynamo", "trace"]
    return (["eager"], ["dynamo"]) if name == "vit-l-14" else (["sdpa", "eager"], ["dynamo", "trace"])


def export(cache, name, tower):
    """ONNX graphs of a tower by both exporters, as they are and after onnxruntime's optimizer for transformers; the fastest stays."""
    import onnxruntime

    folder = f"{cache}/{name}/onnx-{tower}"
    os.makedirs(folder, exist_ok=True)
    sample = pixels(cache)[:8] if tower == "image" else numpy.array(prompts(cache, "padded")[:8])
    key = "pixels" if tower == "image" else "ids"
    variants = {}
    attentions, exporters = exports(name)
    for attention in attentions:
        model = load(cache, name, attention)
        module = (Images(model) if tower == "image" else Texts(model)).eval()
        with torch.no_grad():
            expected = module(torch.from_numpy(sample)).numpy()
            for exporter in exporters:
                label = f"{exporter} {attention}"
                path = f"{folder}/{label.replace(' ', '-')}.onnx"
                try:
                    write_onnx(module, torch.from_numpy(sample), exporter, key, path)
                    variants[label] = path
                    if name != "rn50":
                        variants[f"{label}, optimized"] = optimize(path, model, tower)
                except Exception as error:
                    print(f"  {label}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr)
        del model, module
        gc.collect()
    times = {}
    for label, path in variants.items():  # one at a time: large models do not fit side by side
        try:
            session = onnxruntime.InferenceSession(path, session_options(), providers=["CPUExecutionProvider"])
            found = session.run(None, {key: sample})[0]
            difference = float(numpy.abs(found - expected).max() / numpy.abs(expected).max())
            if difference > 1e-3:
                print(f"  {label}: is wrong by {difference:.1e}, left out", file=sys.stderr)
                continue
            times[label] = min(seconds(lambda: session.run(None, {key: sample})) for _ in range(7))
            del session
            gc.collect()
        except Exception as error:
            print(f"  {label}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr)
    for label, found in times.items():
        nodes = ", ".join(fused(variants[label])) or "nothing fused"
        print(f"  {name} {tower}, {label}: {found * 1e3:.0f} ms for 8 ({nodes})", file=sys.stderr)
    best = min(times, key=times.get)
    with open(f"{folder}/chosen.json", "w") as file:
        json.dump({"path": os.path.basename(variants[best]), "label": best, "milliseconds": {k: v * 1e3 for k, v in times.items()}}, file)
    keep = {os.path.basename(variants[best]), os.path.basename(variants[best]) + ".data", "chosen.json"}
    for other in set(os.listdir(folder)) - keep:
        os.remove(f"{folder}/{other}")


def write_onnx(module, sample, exporter, key, path):
    axes = {0: "n", 1: "tokens"} if key == "ids" else {0: "n"}
    names = dict(input_names=[key], output_names=["out"])
    if exporter == "trace":
        torch.onnx.export(module, (sample,), path, dynamo=False, dynamic_axes={key: axes, "out": {0: "n"}}, opset_version=18, **names)
        return
    shapes = {0: torch.export.Dim("n", min=1, max=512)}
    if key == "ids":
        shapes[1] = torch.export.Dim("tokens", min=2, max=77)
    torch.onnx.export(module, (sample,), dynamo=True, dynamic_shapes=(shapes,), verbose=False, **names).save(path, external_data=True)


def optimize(path, model, tower):
    """The graph after onnxruntime's own fusions for CLIP."""
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    config = model.config.vision_config if tower == "image" else model.config.text_config
    found = optimizer.optimize_model(path, model_type="clip", num_heads=config.num_attention_heads, hidden_size=config.hidden_size,
                                     opt_level=0, optimization_options=FusionOptions("clip"), use_gpu=False)
    better = path.replace(".onnx", "-optimized.onnx")
    found.save_model_to_file(better, use_external_data_format=True)
    return better


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def fused(path):
    import onnx

    kinds = {node.op_type for node in onnx.load(path, load_external_data=False).graph.node if node.domain == "com.microsoft"}
    return sorted(kinds)


def session_options():
    """What onnxruntime is run with: all its optimizations, `THREADS` threads that spin between operations (its default)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return options


def pixels(cache):
    return numpy.fromfile(f"{cache}/inputs/pixels.f32", numpy.float32).reshape(-1, 3, 224, 224)


def prompts(cache, how):
    """80 prompts as token ids: `padded` to 77, padded to the `longest`, or as long as they are (`ragged`)."""
    with open(f"{cache}/inputs/prompts.json") as file:
        ragged = json.load(file)
    if how == "ragged":
        return ragged
    length = 77 if how == "padded" else max(map(len, ragged))
    return [ids + [49407] * (length - len(ids)) for ids in ragged]


def save_prompts(path):
    """The 80 templates of ImageNet, filled with names of classes."""
    from open_clip.tokenizer import SimpleTokenizer
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

    tokenizer = SimpleTokenizer()
    texts = [template(IMAGENET_CLASSNAMES[i * 12]) for i, template in enumerate(OPENAI_IMAGENET_TEMPLATES)]
    with open(path, "w") as file:
        json.dump([[49406, *tokenizer.encode(text), 49407] for text in texts], file)


def save_pixels(path):
    numpy.random.default_rng(0).standard_normal((32, 3, 224, 224), numpy.float32).tofile(path)


def photographs():
    """Photographs that come with Python packages."""
    import skimage.data
    from sklearn.datasets import load_sample_images

    names = ["astronaut", "chelsea", "coffee", "rocket"]
    return [getattr(skimage.data, name)() for name in names] + list(load_sample_images().images)


def save_jpegs(folder, count=2000, classes=10):
    """JPEGs of ImageNet's usual size: other cut-outs of a few photographs, 500 × 375 or 375 × 500, quality 90, 4:2:0."""
    from PIL import Image

    random, sources = numpy.random.default_rng(0), [Image.fromarray(array) for array in photographs()]
    for i in range(count):
        source = sources[random.integers(len(sources))]
        width, height = (500, 375) if random.random() < 0.75 else (375, 500)
        scale = random.uniform(0.6, 1.0) * min(source.width / width, source.height / height)
        w, h = int(width * scale), int(height * scale)
        x, y = random.integers(source.width - w + 1), random.integers(source.height - h + 1)
        picture = source.resize((width, height), Image.Resampling.LANCZOS, box=(int(x), int(y), int(x) + w, int(y) + h))
        noisy = numpy.asarray(picture, numpy.int16) + random.normal(0, 4, (height, width, 3)).astype(numpy.int16)
        place = f"{folder}/class {i % classes}"
        os.makedirs(place, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(numpy.uint8)).save(f"{place}/{i:05}.jpg", quality=90, subsampling=2)


def prepare(cache, what):
    torch.set_num_threads(THREADS)
    once(f"{cache}/inputs/pixels.f32", save_pixels)
    once(f"{cache}/inputs/prompts.json", save_prompts)
    for name in what:
        if name == "jpegs":
            once(f"{cache}/inputs/jpegs", save_jpegs)
        elif name == "rn50":
            once(f"{cache}/rn50/weights.pt", save_rn50)
        else:
            once(f"{cache}/{name}/model", lambda path: save_vit(name, path))
        for tower in towers(name) if name in MODELS else []:
            if not os.path.exists(f"{cache}/{name}/onnx-{tower}/chosen.json"):
                print(f"exporting {name}, {tower} tower", file=sys.stderr, flush=True)
                export(cache, name, tower)


if __name__ == "__main__":
    prepare(sys.argv[1], sys.argv[2:])
