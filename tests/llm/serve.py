"""Serves a model file by llama.cpp's own server on a free port of 127.0.0.1. Prints the address, which takes `/v1`; ends
with its standard input.

    python serve.py tiny.gguf
"""

import os
import sys

import xllamacpp

SLOTS, CONTEXT = 4, 4096


def settings(path):
    chosen = xllamacpp.CommonParams()
    chosen.model.path = path
    chosen.model_alias = {"tiny"}
    chosen.hostnames = ["127.0.0.1"]
    chosen.port = 0
    chosen.n_parallel = SLOTS
    # It is divided by the slots.
    chosen.n_ctx = SLOTS * CONTEXT
    chosen.n_gpu_layers = 0
    chosen.cpuparams.n_threads = 2
    # What makes the start quick.
    chosen.warmup = False
    chosen.fit_params = False
    chosen.ui = False
    return chosen


# The name keeps it alive.
server = xllamacpp.Server(settings(sys.argv[1]))
print(server.listening_address, flush=True)
sys.stdin.read()
# Its own end waits for requests in flight.
os._exit(0)
