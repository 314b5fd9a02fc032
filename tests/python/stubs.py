"""The fleet's gRPC stubs, generated from `proto/` by grpcio-tools as a team with a Python fleet would do it."""

import importlib
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2] / "proto"
# Goes with the process.
_OUT = tempfile.TemporaryDirectory(prefix="cofferdam-stubs-")


def load(proto: str, root: Path = ROOT):
    """The messages and the services of one file, such as `fleet/workflow/v1/workflow.proto`."""
    includes = [f"-I{root}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
    out = _OUT.name
    if protoc.main(["protoc", *includes, f"--python_out={out}", f"--grpc_python_out={out}", proto]) != 0:
        raise SystemExit(f"protoc can't generate {proto}")
    if out not in sys.path:
        sys.path.insert(0, out)
    module = proto.removesuffix(".proto").replace("/", ".")
    return importlib.import_module(f"{module}_pb2"), importlib.import_module(f"{module}_pb2_grpc")
