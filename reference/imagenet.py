"""ImageNet's synsets with the class names and the 80 templates of OpenAI's CLIP, as open_clip and timm carry them.

    python reference/imagenet.py runner/data/embedded
"""

import importlib.resources
import pathlib
import sys

from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

folder = pathlib.Path(sys.argv[1])
synsets = importlib.resources.files("timm").joinpath("data/_info/imagenet_synsets.txt").read_text().split()
assert synsets == sorted(synsets) and len(synsets) == len(IMAGENET_CLASSNAMES) == 1000
lines = [f"{synset}\t{name}\n" for synset, name in zip(synsets, IMAGENET_CLASSNAMES)]
(folder / "imagenet_classes.tsv").write_text("".join(lines))
(folder / "imagenet_templates.txt").write_text("".join(f"{template('{}')}\n" for template in OPENAI_IMAGENET_TEMPLATES))

# A development kit's meta.mat of five classes, the last of which is above the 1,000, as MATLAB would write it.
try:
    import numpy
    import scipy.io
except ImportError:
    sys.exit("meta.mat was left out: pip install scipy")
fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O"), ("children", "O")]
rows = [("n02119789", "kit fox, Vulpes macrotis"), ("n02100735", "English setter"), ("n02110185", "Siberian husky")]
rows += [("n02096294", "Australian terrier"), ("n00001740", "entity")]
table = numpy.zeros((len(rows), 1), dtype=fields)
for row, (synset, words) in enumerate(rows):
    identity = 1001 if synset == "n00001740" else row + 1
    children = numpy.array([[1, 2, 3]], dtype=numpy.uint16) if identity > 1000 else numpy.zeros((1, 0), dtype=numpy.uint8)
    table[row, 0] = (float(identity), synset, words, f"a kind of {words}", float(children.size), children)
golden = folder.parent / "tests" / "golden" / "meta.mat"
scipy.io.savemat(golden, {"synsets": table}, do_compression=True)
