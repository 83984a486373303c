"""A pipeline over a real port: faces of frames, found, aligned and embedded."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lathe.client import Client, ServerError
from lathe.embeddings import Embeddings
from lathe.errors import InvalidInput
from lathe.pipeline_file import PIPELINE_FILE, PipelineSpec
from lathe.v1 import control_pb2, experiment_pb2
from lathe_server.frames import Result
from lathe_server.server import Server
from lathe_server.settings import Settings
from lathe_server.vision import EncodedPicture
from lathe_server.vision.align import TEMPLATES
from lathe_server.vision.decode import decode
from lathe_server.vision.picture import read_header
from tests.calls import channel, control, exposition, metric, refusal, until
from tests.conftest import RunningServer, start_server
from tests.models import card_for, embedding_card, face_vectors, spotted_faces
from tests.pictures import png, scene
from tests.server.faces import (
    DETECTOR,
    EMBED,
    EMBEDDER,
    FACE,
    NETWORK,
    OTHER,
    crowd_jpeg,
    frame,
    publish_faces,
    publish_without_landmarks,
)

FREE = "127.0.0.1:0"
SPACE, OTHER_SPACE = (embedding_card("face-embed", "", network).embedding.space for network in (NETWORK, OTHER))
THREE = crowd_jpeg((160, 160), (320, 240), (480, 320))
NOBODY = crowd_jpeg()


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """For tests that leave its routes and its repository as they are."""
    folder = tmp_path_factory.mktemp("faces")
    publish_faces(folder / "models")
    with start_server(folder / "models", folder / "log", "--price-per-core-hour", "3600") as running:
        yield running


@pytest.fixture
def client(faces: RunningServer) -> Iterator[Client]:
    with faces.client() as opened:
        yield opened


def expected(picture: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Boxes, and vectors of the two largest faces, by the same networks in this process."""
    encoded = EncodedPicture(picture)
    found = DETECTOR.detect(encoded).detections
    header = read_header(encoded)
    return found.xyxy, EMBEDDER.embed(decode(encoded, header, header.upright_wh), found.landmarks[:2])


def test_embed_gives_the_faces_of_a_whole_picture(client: Client) -> None:
    boxes, vectors = expected(THREE)
    result = client.embed("face-id", THREE)
    assert (result.model, result.variant, result.embedded_by) == ("face", "a", "face-embed/a/1")
    np.testing.assert_allclose(result.detections.xyxy, boxes)
    assert result.embeddings
    np.testing.assert_array_equal(result.embeddings.detection, [0, 1])  # all are as large, so the first of them
    np.testing.assert_allclose(result.embeddings.vectors, vectors, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(result.embeddings.vectors, axis=1), 1, atol=1e-5)
    assert result.embeddings.space == SPACE
    assert all(seconds > 0 for seconds in result.stage_seconds.values())


def test_a_streams_results_hold_embeddings_where_it_asks_for_them(client: Client) -> None:
    boxes, vectors = expected(THREE)
    frames = [(picture, 0.0) for picture in (THREE, NOBODY, b"no picture")]
    found, nobody, bad = client.detect_stream("face-id", frames, embeddings=True)
    plain, *_ = client.detect_stream("face-id", frames)
    detected = client.detect("face-id", THREE)
    assert found.embeddings
    assert nobody.embeddings is not None
    np.testing.assert_allclose(found.embeddings.vectors, vectors, atol=1e-6)
    assert (len(nobody.detections), nobody.embeddings.vectors.shape, nobody.embedded_by) == (0, (0, 8), "")
    assert (nobody.embeddings.space, bad.outcome, bad.embeddings) == (SPACE, "rejected", None)
    for without in (plain, detected):
        np.testing.assert_allclose(without.detections.xyxy, boxes)
        assert (without.embeddings, without.embedded_by, without.variant) == (None, "", "a")


def test_an_embedding_network_takes_a_face_with_its_landmarks_or_an_aligned_one(client: Client) -> None:
    pixels = scene(200, 150)
    landmarks = (TEMPLATES["dlib"] * 50 + (60, 40)).astype(np.float32)
    shown = client.embed("face-embed", png(pixels), landmarks=landmarks)
    assert shown.embeddings
    np.testing.assert_allclose(shown.embeddings.vectors, EMBEDDER.embed(pixels, landmarks[None]), atol=1e-6)
    aligned = client.embed("face-embed", scene(32, 32), variant="a")
    assert aligned.embeddings
    np.testing.assert_allclose(aligned.embeddings.vectors, EMBEDDER.embed_aligned(scene(32, 32)[None]), atol=1e-6)
    for result in (shown, aligned):
        assert (result.model, result.embedded_by, len(result.detections)) == ("face-embed", "face-embed/a/1", 0)
        assert result.embeddings
        assert (result.embeddings.space, len(result.embeddings.detection)) == (SPACE, 0)


EYES = np.arange(10.0).reshape(5, 2)
REFUSED: dict[str, tuple[Callable[[Client], object], str, str]] = {
    "another size than the network's": (
        lambda client: client.embed("face-embed", THREE),
        "INVALID_ARGUMENT",
        "32 x 32 pixels, and this picture is 640 x 480; with its landmarks any picture is taken",
    ),
    "a face on one spot": (
        lambda client: client.embed("face-embed", THREE, landmarks=np.ones((5, 2))),
        "INVALID_ARGUMENT",
        "spread over less than 2 pixels cannot be seen",
    ),
    "a face outside the picture": (
        lambda client: client.embed("face-embed", THREE, landmarks=EYES + 700),
        "INVALID_ARGUMENT",
        "the landmarks lie outside the picture, which is 640 x 480",
    ),
    "a face of a pixel": (
        lambda client: client.embed("face-embed", THREE, landmarks=EYES / 8 + 50),
        "INVALID_ARGUMENT",
        "spread over less than 2 pixels cannot be seen",
    ),
    "a face of NaN": (
        lambda client: client.embed("face-embed", THREE, landmarks=np.full((5, 2), np.nan)),
        "INVALID_ARGUMENT",
        "must be finite numbers",
    ),
    "no picture": (lambda client: client.embed("face-embed", b"?", landmarks=EYES), "INVALID_ARGUMENT", "JPEG"),
    "a detector": (lambda client: client.embed("face", THREE), "INVALID_ARGUMENT", "model face embeds nothing"),
    "detections of an embedding network": (
        lambda client: client.detect("face-embed", THREE),
        "INVALID_ARGUMENT",
        "model face-embed detects nothing",
    ),
    "a pipeline with landmarks": (
        lambda client: client.embed("face-id", THREE, landmarks=EYES),
        "INVALID_ARGUMENT",
        "face-id is a pipeline, which finds the faces",
    ),
    "a pipeline's variant": (
        lambda client: client.embed("face-id", THREE, variant="a"),
        "INVALID_ARGUMENT",
        "the routes of face and face-embed decide",
    ),
    "embeddings of a detector's stream": (
        lambda client: list(client.detect_stream("face", [(THREE, 0.0)], embeddings=True)),
        "INVALID_ARGUMENT",
        "face is no pipeline",
    ),
    "nobody's model": (lambda client: client.embed("nobody", THREE), "NOT_FOUND", "no such model"),
    "nobody's variant": (
        lambda client: client.embed("face-embed", THREE, landmarks=EYES, variant="nobody"),
        "NOT_FOUND",
        "face-embed has no variant nobody; it has a, b",
    ),
    "a variant that is not in memory": (
        lambda client: client.embed("face-embed", THREE, landmarks=EYES, variant="b"),
        "FAILED_PRECONDITION",
        "not loaded",
    ),
}


@pytest.mark.parametrize(("call", "status", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_embedded_is_refused_with_a_reason(
    client: Client, call: Callable[[Client], object], status: str, words: str
) -> None:
    with pytest.raises(ServerError) as caught:
        call(client)
    assert caught.value.code.name == status
    assert words in caught.value.message


def test_the_client_takes_landmarks_of_one_shape(client: Client) -> None:
    with pytest.raises(InvalidInput, match="5 × 2, not 2 × 5"):
        client.embed("face-embed", THREE, landmarks=np.ones((2, 5)))


def test_a_frame_counts_once_for_its_pipeline_and_each_stage_for_its_own_variant(
    tmp_path: Path,
) -> None:
    publish_faces(tmp_path / "models")
    with start_server(tmp_path / "models", tmp_path / "log", "--price-per-core-hour", "3600") as server:
        with server.client() as client:
            for picture in (THREE, THREE, NOBODY):
                client.embed("face-id", picture)

        def of(name: str, model: str, **labels: str) -> float:
            return metric(server, name, model=model, **labels)

        own = {"variant": "", "version": "", "outcome": "answered"}
        assert of("lathe_frames_total", "face-id", **own) == 3
        assert of("lathe_frames_total", "face") == of("lathe_frames_total", "face-embed") == 0
        assert of("lathe_request_seconds_count", "face-id") == 3
        assert of("lathe_objective_frames_total", "face-id") == 3
        counts = [of("lathe_stage_seconds_count", model, stage="infer") for model in ("face", "face-embed", "face-id")]
        assert counts == [3, 2, 0]
        for name in ("lathe_cpu_seconds_total", "lathe_cost_usage_total"):
            assert all(of(name, model, variant="a", version="1") > 0 for model in ("face", "face-embed"))
            assert of(name, "face-id") == 0
        spent = [of("lathe_cpu_seconds_total", model) for model in ("face", "face-embed")]
        waited = [of("lathe_stage_seconds_sum", model, stage="queue") for model in ("face", "face-embed")]
        assert (waited[0] > 0, waited[1]) == (True, 0)
        for model, count in (("face", 3), ("face-embed", 2)):
            (told,) = json.loads(page(server, f"/v2/models/{model}/stats"))["model_stats"]
            stats = told["inference_stats"]
            assert [stats[kind]["count"] for kind in ("success", "compute_input", "compute_infer")] == [0, count, count]
        assert sum(spent) == pytest.approx(sum(of("lathe_cost_usage_total", model) for model in ("face", "face-embed")))
        assert metric(server, "lathe_requests_total", method="lathe.v1.InferenceService/Embed", status="OK") == 3


def test_energy_and_carbon_go_to_each_variant_by_its_own_time(tmp_path: Path) -> None:
    """Which are shared out by what the accountant is told."""
    used: list[tuple[str, float]] = []

    async def act() -> None:
        server = Server(publish_faces(tmp_path / "models"), Settings(grpc=FREE, http=FREE, control=FREE, workers=1))
        server._accountant.used = lambda ref, seconds, gpu=0.0: used.append((ref.model, seconds))  # type: ignore[method-assign]
        whole = Result(frame(), "answered", FACE, cpu_seconds=5.0)
        shares = (replace(whole, cpu_seconds=3.0), replace(whole, ref=EMBED, cpu_seconds=2.0))
        server._observe(replace(whole, shares=shares))

    asyncio.run(act())
    assert used == [("face", 3.0), ("face-embed", 2.0)]


def test_a_shadow_of_the_detector_sees_the_pipelines_frames(tmp_path: Path) -> None:
    repository = publish_faces(tmp_path / "models")
    repository.publish(card_for("face", "b"), spotted_faces())
    request = control_pb2.SetRouteRequest(model="face", shadow={"variant": {"variant": "b"}, "share": 1})
    request.weights.add(variant="a", weight=1)
    with start_server(repository.root, tmp_path / "log") as server, server.client() as client:
        with channel(server.control) as opened:
            control(opened).SetRoute(request)

        def compared() -> bool:
            client.embed("face-id", THREE)
            return metric(server, "lathe_shadow_frames_total", model="face", variant="b", outcome="compared") >= 2

        until(compared)
        boxes = [metric(server, "lathe_shadow_boxes_total", model="face", kind=kind) for kind in ("matched", "found")]
        assert 2 * boxes[0] == boxes[1] > 0
        assert metric(server, "lathe_shadow_frames_total", outcome="failed") == 0


def test_swaps_of_either_model_reach_the_pipeline_by_their_own_routes(tmp_path: Path) -> None:
    repository = publish_faces(tmp_path / "models")
    publish_without_landmarks(repository, "face", "blind")
    with start_server(repository.root, tmp_path / "log") as server, server.client() as client:
        assert _told(client) == ("face-embed/a/1", SPACE)
        client.set_route("face-embed", {"b": 1})
        assert _told(client) == ("face-embed/b/1", OTHER_SPACE)
        with channel(server.control) as opened:
            to_blind = control_pb2.SetRouteRequest(model="face")
            to_blind.weights.add(variant="blind", weight=1)
            error = refusal(lambda: control(opened).SetRoute(to_blind))
            assert error.code().name == "FAILED_PRECONDITION"
            assert "pipeline face-id depends on face: variant blind/1 of face gives 0 landmarks" in error.details()
            shadowed = control_pb2.SetRouteRequest(model="face-embed", shadow={"variant": {"variant": "a"}, "share": 1})
            shadowed.weights.add(variant="b", weight=1)
            assert "not compared in the shadow" in refusal(lambda: control(opened).SetRoute(shadowed)).details()
        assert client.route("face").revision == 0
        with pytest.raises(ServerError, match="the routes of face and face-embed say"):
            client.route("face-id")
        assert _told(client) == ("face-embed/b/1", OTHER_SPACE)


def _told(client: Client) -> tuple[str, str]:
    result = client.embed("face-id", THREE)
    assert result.embeddings
    return result.embedded_by, result.embeddings.space


def test_a_pipeline_is_followed_in_the_repository_while_the_server_runs(tmp_path: Path) -> None:
    repository = publish_faces(tmp_path / "models")
    repository.remove_pipeline("face-id")
    publish_without_landmarks(repository, "spots", "a")
    with start_server(repository.root, tmp_path / "log") as server, server.client() as client:

        def embedded() -> int | str:
            try:
                return len(client.embed("face-id", THREE).embeddings or Embeddings.none())
            except ServerError as error:
                return f"{error.code.name} {error.message}"

        assert embedded() == "NOT_FOUND no such model is served here"
        for largest in (3, 1):
            repository.write_pipeline("face-id", PipelineSpec("face", "face-embed", largest=largest))
            until(lambda wanted=largest: embedded() == wanted)
        (repository.root / "face-id" / PIPELINE_FILE).write_text('{"detector": "face"}')
        until(lambda: 'the key "embedder" is missing' in server.log.read_text())
        assert embedded() == 1
        repository.write_pipeline("face-id", PipelineSpec("spots", "face-embed"))
        reason = "FAILED_PRECONDITION variant a/1 of spots gives 0 landmarks a face; a pipeline aligns faces by 5"
        until(lambda: embedded() == reason)
        assert client.detect("face-id", THREE).answered  # which needs no landmarks
        repository.write_pipeline("face-id", PipelineSpec("face", "spots"))
        until(
            lambda: (
                embedded() == "FAILED_PRECONDITION model spots embeds nothing, and a pipeline embeds what it detects"
            )
        )
        (repository.root / "face-id" / PIPELINE_FILE).write_bytes(PipelineSpec("face-id", "face-embed").as_json())
        until(lambda: "pipeline face-id cannot be served: face-id is a pipeline itself" in server.log.read_text())
        assert embedded() == "NOT_FOUND no such model is served here"
        repository.write_pipeline("face-id", PipelineSpec("face", "nobody"))
        until(lambda: embedded() == "NOT_FOUND pipeline face-id needs the model nobody, which is not served here")
        repository.remove_pipeline("face-id")
        until(lambda: "pipeline face-id: served no more" in server.log.read_text())


def test_an_experiment_on_the_embedder_measures_the_pipelines_frames(tmp_path: Path) -> None:
    repository = publish_faces(tmp_path / "models")
    asked = experiment_pb2.ExperimentSpec(
        model="face-embed",
        baseline={"variant": "a"},
        candidate={"variant": "b"},
        block_seconds=0.25,
        shadow_rounds=2,
        max_seconds=60,
    )
    with start_server(repository.root, tmp_path / "log") as server, server.client() as client:
        begun = client.start_experiment(asked)
        assert (begun.spec.minimum_agreement, begun.spec.shadow_rounds) == (-1, 0)  # two spaces are not compared

        def measured() -> bool:
            for _ in range(5):
                client.embed("face-id", THREE)
            rounds = client.experiment("face-embed").rounds
            return any(one.baseline_frames and one.candidate_frames for one in rounds)

        until(measured)
        effects = {one.metric for round_ in client.experiment("face-embed").rounds for one in round_.effects}
        assert {"cpu_seconds", "service_seconds"} <= effects
        assert client.stop_experiment("face-embed").state == experiment_pb2.EXPERIMENT_STATE_ENDED


@pytest.mark.fault(87)
def test_no_embedding_is_in_a_log_a_metric_or_on_the_page(tmp_path: Path) -> None:
    """A network whose every vector is the same, so that its digits would be seen anywhere."""
    direction = np.array([0.1357924, 0.8642013, 0.2468135, 0.97531, 0.31415, 0.27182, 0.16180, 0.57721])
    network = face_vectors(fixed=direction)
    repository = publish_faces(tmp_path / "models")
    repository.publish(embedding_card("face-embed", "fixed", network), network)
    vector = direction / np.linalg.norm(direction)
    digits = [f"{value:.7f}"[1:8] for value in vector]  # from the point on
    with (
        start_server(repository.root, tmp_path / "log", "--log-level", "debug", "--live", "plain") as server,
        server.client() as client,
    ):
        client.set_route("face-embed", {"fixed": 1})
        page(server, "/live")  # from now on frames are kept for it
        results = [client.embed("face-id", THREE), *client.detect_stream("face-id", [(THREE, 0.0)], embeddings=True)]
        for landmarks in (EYES, np.ones((5, 2))):
            try:
                results.append(client.embed("face-embed", THREE, landmarks=landmarks))
            except ServerError as error:
                results.append(error)
        said = [exposition(server), server.log.read_text(), page(server, "/live/state"), *map(repr, results)]
    embedded = results[0].embeddings
    assert embedded is not None
    np.testing.assert_allclose(embedded.vectors[0], vector, atol=1e-6)
    assert "frame answered" in said[1]
    assert '"boxes"' in said[2]
    assert not [(word, text[:80]) for word in digits for text in said if word in text]


def page(server: RunningServer, path: str) -> str:
    with urllib.request.urlopen(f"http://{server.http}{path}", timeout=10) as response:
        return str(response.read(), "utf-8")
