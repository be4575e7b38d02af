"""llama-server in a process of its own, started by `judge.LlamaServer`; imports xllamacpp alone.

Says its address on one line, or what went wrong, and ends when its input does.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main(path: str, context: str, threads: str, projector: str) -> None:
    """Load a GGUF file, and a projector file if one is named, and serve it on a free port."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.n_ctx = int(context)
    if projector:
        parameters.mmproj.path = projector
        parameters.mmproj_use_gpu = False
    parameters.n_gpu_layers = 0
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = int(threads)
    parameters.warmup = False
    # figures are compared, so nothing is rounded but what the file itself has rounded
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.use_jinja = True
    parameters.port = 0
    parameters.verbosity = 1  # errors, which the exception does not tell
    try:
        server: Any = xllamacpp.Server(parameters)
    except Exception as error:  # whatever it is, the parent tells it
        _say(error=str(error))
    else:
        _say(address=server.listening_address)
        sys.stdin.read()
    os._exit(0)  # the server's own end can wait for ever


def _say(**what: str) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
