"""Where a plan's tasks are carried out: finished ones come from the store, begun ones go on from their checkpoint."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import torch_pruning
from numpy.typing import NDArray
from torch import Tensor, fx

from lathe.errors import BadPicture
from lathe.progress import Progress
from lathe.used_pictures import UsedPictures
from lathe_compression import carry_out, frames
from lathe_compression.channels import fit_to
from lathe_compression.distill import Distill, Lesson
from lathe_compression.embedding_losses import relation_loss, vector_loss
from lathe_compression.export import TOLERANCE, Normalisation, export
from lathe_compression.face_scenes import face_scene
from lathe_compression.hygiene import clean
from lathe_compression.label_losses import LABEL_LOSSES
from lathe_compression.labels import Objects, read_labels
from lathe_compression.losses import OUTPUT_LOSSES
from lathe_compression.pictures import NamedPicture, PictureSet, canvases, file_digest, load_pictures, picture_files
from lathe_compression.plan import Inputs, Task
from lathe_compression.prune import Prune
from lathe_compression.quantize import Quantize
from lathe_compression.recipe import TEACHER, FrameSet, RecipeFile
from lathe_compression.recipe_faces import RecipeFaces
from lathe_compression.runs import RunRecord
from lathe_compression.scenes import Scene, scene
from lathe_compression.store import StepStore, digest
from lathe_compression.student import build_student, compose_linear, drop_blocks
from lathe_compression.taps import traced
from lathe_compression.teacher import load_teacher
from lathe_compression.teacher_labels import TEACHER_LABELS_REVISION, TeacherLabels
from lathe_compression.training import SHARD
from lathe_compression.unit_vectors import ending_in_unit_vectors
from lathe_compression.watch import CosineWatch, DetectionWatch, Watch
from lathe_server.vision.detections import Thresholds

PROBE_SEED, LESSON_PROBE, WATCHED = 0, 64, 32
SHARD_OF_FACES = 16


@dataclass(frozen=True)
class Calibration:
    """Attributes:
    inputs: of the network, 1 × H × W × 3 uint8.
    digests: of the pictures in them.
    """

    inputs: Sequence[NDArray[np.uint8]]
    digests: Sequence[str]


class Workshop:
    """All that the tasks of one recipe need, each thing made when it is first asked for.

    Args:
        cache: folder of the store.
        record: of the run; None where only the plan is wanted.

    Attributes:
        folder: what the recipe's paths are relative to.
        faces: of an embedding network's pictures.
    """

    def __init__(self, file: RecipeFile, cache: Path, progress: Progress, record: RunRecord | None = None) -> None:
        self._file = file
        self.recipe = file.recipe
        self.folder = file.folder
        self._cache = cache
        self.progress = progress
        self.record = record
        self.store = StepStore(cache / "steps")
        self.faces = RecipeFaces(file.recipe.model, file.folder, progress)
        self._float_graphs: dict[str, tuple[onnx.ModelProto, str]] = {}

    @cached_property
    def teacher(self) -> fx.GraphModule:
        with self.progress.step("teacher: load"):
            return self._complete(traced(load_teacher(self.recipe.model.teacher, self.folder)).eval())

    @cached_property
    def calibration(self) -> Calibration:
        """Raises:
        NotFound: the recipe names what is not there.
        BadPicture: none of what it names is a picture.
        """
        inputs: list[NDArray[np.uint8]] = []
        used: set[str] = set()
        if self.recipe.calibration:
            skipped: list[str] = []
            with self.progress.step("calibration pictures: read"):
                for chosen in self.recipe.calibration:
                    pictures = list(load_pictures(chosen, self.folder, skipped))
                    used |= {picture.sha256 for picture in pictures}
                    if self.recipe.model.embeds:
                        inputs += self.faces.inputs(pictures)
                    else:
                        inputs += canvases(pictures, chosen.grid, self.serving_size)
            self.say_skipped("calibration", skipped)
            if skipped and not inputs:
                raise BadPicture("none of the calibration pictures can be decoded")
        return Calibration(inputs, sorted(used))

    @cached_property
    def _frames_key(self) -> str:
        """Digest of the training frames with their groups, weights and labels."""
        base = self.folder

        def key(one: FrameSet) -> list[Any]:
            pictures = [file_digest(path) for path in picture_files(one.as_pictures(), base)]
            labels = [file_digest(path) for path in self._label_files([one])]
            labels += self._teacher_labels_key if one.labels == TEACHER else []
            return [one.every, one.weight, pictures, *labels]

        faces = [self.faces.key] if self.recipe.model.embeds else []
        return digest([*(key(one) for one in self.recipe.frames), *faces])

    @cached_property
    def _teacher_labels_key(self) -> list[Any]:
        """All that what the teacher finds depends on."""
        model = self.recipe.model
        operating = model.operating
        graph = hashlib.sha256(self.float_graph(None)[0].SerializeToString(deterministic=True)).hexdigest()
        settings = [model.decoder_name, model.multiple, operating.min_score, operating.nms]
        return [TEACHER_LABELS_REVISION, graph, *settings, f"onnxruntime {onnxruntime.__version__}"]

    def _label_files(self, sets: Sequence[FrameSet]) -> list[Path]:
        return [
            path for one in sets if one.label_file for path in picture_files(PictureSet((one.label_file,)), self.folder)
        ]

    @cached_property
    def _labels(self) -> dict[str, Objects]:
        """By the digest of the picture."""
        found: dict[str, Objects] = {}
        for path in self._label_files(self.recipe.frames):
            found |= read_labels(path, self.recipe.model.classes)
        return found

    @cached_property
    def frames(self) -> frames.FramePool:
        """The training frames; pictures that cannot be read are left out, counted and named."""

        def make(folder: Path) -> None:
            skipped: list[str] = []
            embeds = self.recipe.model.embeds
            groups = []
            for one in self.recipe.frames:
                pictures = load_pictures(one.as_pictures(), self.folder, skipped)
                shown = self.faces.to_learn_from(pictures) if embeds else pictures
                groups.append(frames.Group(shown, one.weight, self._known_of(one)))
            with self.progress.step(f"training frames: decode{', and align their faces' if embeds else ''}"):
                frames.write(groups, folder, skipped)

        pool = frames.FramePool(StepStore(self._cache / "frames").obtain(self._frames_key, make))
        self.say_skipped("training", pool.skipped)
        if self._labels and not pool.labelled:
            self.progress.warn("no training picture is one of those that the labels are of")
        return pool

    def say_skipped(self, purpose: str, names: Sequence[str]) -> None:
        """Warns of pictures that could not be decoded."""
        if names:
            self.progress.warn(
                f"{len(names)} {purpose} pictures cannot be read and are left out: {', '.join(names[:5])}"
            )

    def _known_of(self, chosen: FrameSet) -> Callable[[NamedPicture], Objects | None]:
        """Looks up what people drew, or what the teacher finds."""
        return self._teacher_labels.find if chosen.labels == TEACHER else lambda one: self._labels.get(one.sha256)

    @cached_property
    def _teacher_labels(self) -> TeacherLabels:
        model = self.recipe.model
        graph = self.float_graph(None)[0].SerializeToString()
        operating = model.operating
        return TeacherLabels(graph, model.decoder_name, model.multiple, operating.min_score, operating.nms)

    @cached_property
    def inputs(self) -> Inputs:
        """Digests that the plan's keys are made of."""
        trains = any(step.trains for variant in self.recipe.variant for step in variant.steps)
        return Inputs(
            teacher=_network_digest(self.teacher),
            frames=self._frames_key if trains else "",
            calibration=digest([hashlib.sha256(one.tobytes()).hexdigest() for one in self.calibration.inputs]),
            students=self._students,
            tools=[
                f"torch {torch.__version__}",
                f"torch-pruning {torch_pruning.__version__}",
                f"onnx {onnx.__version__}",
                f"onnxruntime {onnxruntime.__version__}",
            ],
        )

    @property
    def _students(self) -> dict[str, str]:
        """Digests of the networks that the recipe's factories make, by the factory's name."""
        steps = [step.distill for variant in self.recipe.variant for step in variant.steps if step.distill]
        chosen = {step.student.factory: step for step in steps if step.student and step.student.factory}
        return {name: _network_digest(self.student(step)) for name, step in chosen.items()}

    def network(self, task: Task | None) -> fx.GraphModule:
        """The float network after a task, eval'd; a copy that the caller may change."""
        if task is None:
            return copy.deepcopy(self.teacher)
        network = self._structure(task)
        fit_to(network, torch.load(self._obtain(task) / carry_out.STATE_FILE, weights_only=True))
        return network.eval()

    def float_graph(self, task: Task | None) -> tuple[onnx.ModelProto, str]:
        """The clean FP32 graph after a task, with hygiene's sentence; not for changing."""
        key = task.key if task else ""
        if key not in self._float_graphs:
            self._float_graphs[key] = clean(self.export(self.network(task)))
        return self._float_graphs[key]

    def export(self, network: fx.GraphModule, tolerance: float = TOLERANCE) -> onnx.ModelProto:
        model = self.recipe.model
        names, multiple = model.output_names, model.multiple
        return export(network, self.normalisation, names, multiple, tolerance, model.fixed_wh)

    def quantized_graph(self, task: Task) -> onnx.ModelProto:
        return onnx.load(self._obtain(task) / carry_out.MODEL_FILE)

    def facts(self, task: Task) -> dict[str, Any]:
        """What is known of a finished task: sentences for the lineage, losses, measurements, as in `making.json`."""
        found: dict[str, Any] = json.loads((self._obtain(task) / carry_out.FACTS_FILE).read_text("utf-8"))
        return found

    @property
    def normalisation(self) -> Normalisation:
        return Normalisation(self.recipe.model.input.mean, self.recipe.model.input.std)

    @property
    def shard(self) -> int:
        """Scenes that are learnt from at a time; among faces relations are learnt, and of few there are few."""
        return SHARD_OF_FACES if self.recipe.model.embeds else SHARD

    @property
    def serving_size(self) -> tuple[int, int]:
        return self.recipe.model.serving_size

    def used_pictures(self, task: Task | None) -> UsedPictures:
        """All that a variant has seen."""
        seen: set[str] = set()
        for one in task.chain if task else []:
            seen |= set(self.calibration.digests) if one.step.calibrates else set()
            seen |= set(self.frames.digests) if one.step.trains else set()
        return UsedPictures(seen)

    def batch(self, seed: int, number: int) -> Tensor:
        """One batch of scenes, N×3×H×W, as the network sees them."""
        training = self.recipe.training
        numbers = range(number * training.batch, (number + 1) * training.batch)
        pixels = torch.from_numpy(np.stack([self.scenes(seed)(one).pixels for one in numbers]))
        return self.normalisation.apply(pixels.permute(0, 3, 1, 2).float())

    def probe(self, scenes: int) -> list[Tensor]:
        """Batches of scenes that show what a network does, always the same ones; at least one."""
        return [self.batch(PROBE_SEED, number) for number in range(max(1, scenes // self.recipe.training.batch))]

    @cached_property
    def lesson(self) -> Lesson:
        model = self.recipe.model
        losses = self.recipe.training.losses
        loss = vector_loss if model.embeds else OUTPUT_LOSSES[model.decoder_name]
        label_loss = LABEL_LOSSES[model.decoder_name] if self.frames.labelled else None
        relations = relation_loss if model.embeds else None
        return Lesson(self.teacher, model.output_names, loss, losses, self.probe(LESSON_PROBE), label_loss, relations)

    @cached_property
    def watch(self) -> Watch:
        model = self.recipe.model
        if model.embeds:
            return CosineWatch(self.teacher, self.probe(WATCHED))
        operating = model.operating
        thresholds = Thresholds(operating.min_score, operating.nms, operating.max_detections)
        return DetectionWatch(self.teacher, model.outputs, model.decoder_name, thresholds, self.probe(WATCHED))

    def _obtain(self, task: Task) -> Path:
        make = {Distill: carry_out.distill, Prune: carry_out.prune, Quantize: carry_out.quantize_step}
        step = make[type(task.step.settings)]
        return self.store.obtain(task.key, lambda folder: step(self, task, folder))

    def _structure(self, task: Task | None) -> fx.GraphModule:
        """The layers that a task's network has, with weights that do not matter yet."""
        if task is None:
            return copy.deepcopy(self.teacher)
        settings = task.step.settings
        if isinstance(settings, Distill) and settings.student:
            return self.student(settings)
        network = self._structure(task.parent)
        if isinstance(settings, Prune):
            facts = self.facts(task)
            drop_blocks(network, facts.get("dropped", ()))
            compose_linear(network, facts["composed"])
        return network

    def student(self, settings: Distill) -> fx.GraphModule:
        assert settings.student
        seed = self.recipe.training.seed
        return self._complete(build_student(settings.student, self.teacher, self.example, self.folder, seed))

    def _complete(self, network: fx.GraphModule) -> fx.GraphModule:
        """With what the task says that every network ends in."""
        return ending_in_unit_vectors(network) if self.recipe.model.embeds else network

    @cached_property
    def example(self) -> Tensor:
        return torch.zeros(1, 3, *self._size_wh[::-1])

    @property
    def _size_wh(self) -> tuple[int, int]:
        return self.recipe.training.size or self.serving_size

    def scenes(self, seed: int) -> Callable[[int], Scene]:
        training, pool, size_wh = self.recipe.training, self.frames, self._size_wh
        draw = face_scene if self.recipe.model.embeds else scene
        return lambda number: draw(pool, training.augment, size_wh, training.seed * 1000 + seed, number)


def _network_digest(network: fx.GraphModule) -> str:
    found = hashlib.sha256(f"{network.code}{network}".encode())  # the calls, and the layers' settings
    for name, tensor in network.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()
