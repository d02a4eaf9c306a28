"""A copy of the installed onnxruntime that finds no AVX-512.

onnxruntime has no switch for it: MLAS looks at CPUID and, with `xgetbv`, at the register state that the operating system saves,
and takes the best kernels. In the copy `xgetbv` (3 bytes, 0f 01 d0) is `push 7; pop rax` (3 bytes, too): SSE and AVX state are
saved, AVX-512's is not. So it takes the kernels that it takes on a machine with AVX2.
"""

import importlib.util
import os
import re
import shutil
import sys

# What stands before or after the instruction in compiled code; the three bytes alone also occur by chance.
XGETBV = re.compile(rb"(?<=\x31\xc9)\x0f\x01\xd0|\x0f\x01\xd0(?=\x89\xc0\x48\xc1\xe2\x20)")


def copy(folder):
    """Makes the copy unless it is there; gives the folder to import it from."""
    if os.path.exists(folder):
        return folder
    source = importlib.util.find_spec("onnxruntime").submodule_search_locations[0]
    started = f"{folder}.part"
    shutil.rmtree(started, ignore_errors=True)
    shutil.copytree(source, f"{started}/onnxruntime", ignore=shutil.ignore_patterns("__pycache__", "transformers", "quantization"))
    changed = 0
    for name in os.listdir(f"{started}/onnxruntime/capi"):
        if ".so" in name:
            path = f"{started}/onnxruntime/capi/{name}"
            with open(path, "rb") as file:
                found, count = XGETBV.subn(b"\x6a\x07\x58", file.read())
            with open(path, "wb") as file:
                file.write(found)
            changed += count
    if changed == 0:
        sys.exit("error: found nothing to change in this version of onnxruntime: it keeps AVX-512")
    os.rename(started, folder)
    return folder
