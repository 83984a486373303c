"""Run by the Python of Triton's clients: everything that they offer and Lathe serves, once each; prints what came back.

triton_clients.py GRPC HTTP PICTURE
"""

import asyncio
import json
import queue
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

VALUES = np.arange(32, dtype=np.float32).reshape(2, 16)


def asked(kind, *, binary=None):
    how = {} if binary is None else {"binary_data": binary}
    tensor = kind.InferInput("x", VALUES.shape, "FP32")
    tensor.set_data_from_numpy(VALUES, **how)
    return {"inputs": [tensor], "outputs": [kind.InferRequestedOutput("y", **how)]}


def picture(kind, path):
    tensor = kind.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([Path(path).read_bytes()], object))
    return [tensor]


def refused(act):
    try:
        act()
    except InferenceServerException as error:
        return error.message()
    return "not refused"


def same(result):
    return bool(np.array_equal(result.as_numpy("y"), 2 * VALUES))


def over_grpc(address, path):
    kind = tritonclient.grpc
    with kind.InferenceServerClient(address) as client:
        streamed = queue.Queue()
        client.start_stream(lambda result, error: streamed.put(error.message() if error else same(result)))
        for number in range(5):
            client.async_stream_infer("double", request_id=str(number), **asked(kind))
        client.async_stream_infer("nobody", **asked(kind))
        streams = [streamed.get(timeout=10) for _ in range(6)]
        client.stop_stream()
        waited = queue.Queue()
        client.async_infer("double", callback=lambda result, error: waited.put(error or same(result)), **asked(kind))
        client.load_model("spots/b")
        loaded = client.is_model_ready("spots/b", "1")
        client.unload_model("spots/b")
        config = client.get_model_config("double", as_json=True)["config"]
        return {
            "live": client.is_server_live() and client.is_server_ready() and client.is_model_ready("double"),
            "server": client.get_server_metadata().name,
            "inputs": [one.name for one in client.get_model_metadata("double").inputs],
            "config": [config["name"], config["max_batch_size"]],
            "infer": same(client.infer("double", **asked(kind))),
            "pinned": same(client.infer("double/plain", model_version="1", **asked(kind))),
            "async": waited.get(timeout=10),
            "streams": streams,
            "xyxy": client.infer("spots", picture(kind, path)).as_numpy("xyxy").tolist(),
            "index": sorted(one.name for one in client.get_model_repository_index().models),
            "loaded": [loaded, client.is_model_ready("spots/b")],
            "counted": client.get_inference_statistics("double").model_stats[0].inference_count > 0,
            "refused": refused(lambda: client.infer("nobody", **asked(kind))),
        }


def over_http(address, path):
    kind = tritonclient.http
    with kind.InferenceServerClient(address) as client:
        client.load_model("spots/b")
        loaded = client.is_model_ready("spots/b", "1")
        client.unload_model("spots/b")
        config = client.get_model_config("double")
        return {
            "live": client.is_server_live() and client.is_server_ready() and client.is_model_ready("double"),
            "server": client.get_server_metadata()["name"],
            "inputs": [one["name"] for one in client.get_model_metadata("double")["inputs"]],
            "config": [config["name"], config["max_batch_size"]],
            "infer": same(client.infer("double", **asked(kind, binary=True))),
            "in json": same(client.infer("double", **asked(kind, binary=False))),
            "pinned": same(client.infer("double/plain", model_version="1", **asked(kind, binary=True))),
            "packed": same(
                client.infer(
                    "double",
                    request_compression_algorithm="gzip",
                    response_compression_algorithm="deflate",
                    **asked(kind, binary=True),
                )
            ),
            "async": same(client.async_infer("double", **asked(kind, binary=True)).get_result()),
            "xyxy": client.infer("spots", picture(kind, path)).as_numpy("xyxy").tolist(),
            "index": sorted(one["name"] for one in client.get_model_repository_index()),
            "loaded": [loaded, client.is_model_ready("spots/b")],
            "counted": client.get_inference_statistics("double")["model_stats"][0]["inference_count"] > 0,
            "refused": refused(lambda: client.infer("nobody", **asked(kind, binary=True))),
        }


async def at_once(grpc_address, http_address):
    found = {}
    kind = tritonclient.grpc
    async with tritonclient.grpc.aio.InferenceServerClient(grpc_address) as client:

        async def requests():
            for number in range(5):
                yield {"model_name": "double", "request_id": str(number), **asked(kind)}

        found["infer"] = same(await client.infer("double", **asked(kind)))
        found["streams"] = [error or same(result) async for result, error in client.stream_infer(requests())]
        found["server"] = (await client.get_server_metadata()).name
    async with tritonclient.http.aio.InferenceServerClient(http_address) as client:
        found["over http"] = same(await client.infer("double", **asked(tritonclient.http, binary=True)))
        found["ready"] = await client.is_model_ready("double")
    return found


def main():
    grpc_address, http_address, path = sys.argv[1:]
    told = {
        "grpc": over_grpc(grpc_address, path),
        "http": over_http(http_address, path),
        "aio": asyncio.run(at_once(grpc_address, http_address)),
    }
    print(json.dumps(told))


main()
