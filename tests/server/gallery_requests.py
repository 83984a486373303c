"""Good requests for each method of the gallery, to a server on `publish_faces`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from google.protobuf.message import Message

from lathe.v1 import gallery_pb2, inference_pb2
from tests.models import embedding_card
from tests.server.faces import NETWORK, crowd_jpeg

SERVICE = "lathe.v1.GalleryService"
SUBJECTS = ("ann", "bob")
SPACE = embedding_card("face-embed", "a", NETWORK).embedding.space


def gallery_requests() -> Mapping[str, Sequence[Message]]:
    """By method; whoever is enrolled has a picture, so that all can be enrolled anew."""
    ann = gallery_pb2.Face(frame=inference_pb2.Frame(encoded=crowd_jpeg((320, 240))))
    two = gallery_pb2.Face(frame=inference_pb2.Frame(encoded=crowd_jpeg((160, 160), (480, 320))), largest=True)
    one = np.eye(1, 8, dtype=np.float32)[0].tolist()
    vector = gallery_pb2.Face(embedding=gallery_pb2.FaceVector(values=one, space=SPACE))
    faces = (ann, two, vector)
    return {
        "Enroll": [gallery_pb2.EnrollRequest(subject="ann", face=face) for face in (ann, two)],
        "Verify": [gallery_pb2.VerifyRequest(subject="ann", face=face, fmr=0.01) for face in faces],
        "Identify": [gallery_pb2.IdentifyRequest(face=face, limit=5) for face in faces],
        "Delete": [gallery_pb2.DeleteRequest(subject="ann"), gallery_pb2.DeleteRequest(subject="ann", record="0" * 32)],
        "Export": [gallery_pb2.ExportRequest(vectors=True), gallery_pb2.ExportRequest(subject="ann")],
        "ReEnroll": [gallery_pb2.ReEnrollRequest(variant="a"), gallery_pb2.ReEnrollRequest(variant="b/1")],
        "Describe": [gallery_pb2.DescribeRequest()],
    }


def gallery_scenes() -> Mapping[str, Sequence[Sequence[tuple[str, Message]]]]:
    """By the method's path, what comes before: Ann is enrolled."""
    found = gallery_requests()
    enrolled = [(f"/{SERVICE}/Delete", found["Delete"][0]), (f"/{SERVICE}/Enroll", found["Enroll"][0])]
    return {f"/{SERVICE}/{method}": [enrolled] for method in found if method != "Describe"}
