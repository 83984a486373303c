"""From bytes to detections and embeddings: steps 3 to 6 of the life of a frame.

Pure functions of their arguments, run on worker threads, and the same for the server, for
evaluation and for benchmarks: a variant is judged by the eyes that will serve it.
"""

import cv2

from lathe.detections import Detections
from lathe_server.vision.decode import decode
from lathe_server.vision.detections import suppress
from lathe_server.vision.detector import Answer, Detector
from lathe_server.vision.embedder import Embedder
from lathe_server.vision.faces import Portrait
from lathe_server.vision.letterbox import Placement, fit, letterbox
from lathe_server.vision.picture import EncodedPicture, Picture, RawPicture

__all__ = [
    "Answer",
    "Detections",
    "Detector",
    "Embedder",
    "EncodedPicture",
    "Picture",
    "Placement",
    "Portrait",
    "RawPicture",
    "decode",
    "fit",
    "letterbox",
    "suppress",
]

# Workers are the parallelism: OpenCV's own threads would only compete with them.
cv2.setNumThreads(1)
