"""How each kind of task is carried out, in a folder that an interrupted call may have left half done."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch
from torch import Tensor, fx, nn

from lathe_compression import qat
from lathe_compression.channels import find_groups, fit_to
from lathe_compression.distill import BatchLoss
from lathe_compression.hygiene import clean
from lathe_compression.latency import latency_share
from lathe_compression.masks import compressed_bytes, density, hold_zeros, mask
from lathe_compression.mixed_precision import LayerCost, layers_to_keep, measure_layers
from lathe_compression.plan import Task
from lathe_compression.prune import Prune, blocks_to_spare, cost_of, prune_once, sensitivity
from lathe_compression.quantize import Quantize, quantize
from lathe_compression.store import disk_full_said, write_whole
from lathe_compression.student import compose_linear, drop_blocks
from lathe_compression.training import Moment, Schedule, save_tensors, train

if TYPE_CHECKING:
    from lathe_compression.workshop import Workshop

STATE_FILE = "state.pt"
MODEL_FILE = "model.onnx"
FACTS_FILE = "facts.json"
SENSITIVITY_FILE = "sensitivity.json"
LATENCIES_FILE = "latencies.json"
BLOCKS_FILE = "blocks.json"
LAYERS_FILE = "layers.json"
HELD_OUT = 6
"""Calibration pictures that judge layers instead of setting their ranges."""
LATENCY_ATTEMPTS, LATENCY_TOLERANCE = 5, 0.03
TARGET_TOLERANCE = 0.05
FIRST_SEED = 1
REPORT_EVERY = 25
LOOKS, STEPS_BETWEEN_LOOKS = 20, 100
"""At what a student finds, in one training: so many at most, so far apart at least, and one at the end."""


def distill(shop: Workshop, task: Task, folder: Path) -> None:
    settings = task.step.distill
    assert settings
    network = shop.student(settings) if settings.student else shop.network(task.parent)
    schedule = Schedule(
        settings.pictures, shop.recipe.training.batch, settings.rate, freeze_norms=settings.freeze_norms
    )
    lesson = shop.lesson.loss_for(network, settings.losses)
    curve = _train(shop, network, lesson, schedule, FIRST_SEED, folder / "checkpoint.pt", task)
    weight = (settings.losses or shop.recipe.training.losses).labels
    labelled = f", labels of {shop.frames.labelled} weighing {weight:g}" if shop.frames.labelled and weight else ""
    sentence = f"{task.step.describe()} of {'' if labelled else 'unlabelled '}frames{labelled}"
    _finish(folder, network, {"sentences": [sentence], "curve": curve})


def prune(shop: Workshop, task: Task, folder: Path) -> None:
    """Rounds of cutting and training. Each leaves two files, from which a later call goes on; what
    follows is always made from the files, so that it is the same whether there was an interruption."""
    settings = task.step.prune
    assert settings
    if settings.scope == "weights":
        _prune_weights(shop, task, settings, folder)
    else:
        _prune_channels(shop, task, settings, folder)


def _prune_channels(shop: Workshop, task: Task, settings: Prune, folder: Path) -> None:
    network = shop.network(task.parent)
    dropped = _dropped_blocks(shop, task, settings, folder, network)
    drop_blocks(network, dropped)
    composed = compose_linear(network)
    whole = {group.name: group.width for group in find_groups(network, shop.example, settings.channels)}

    def cut(network: fx.GraphModule, share: float, number: int) -> fx.GraphModule:
        return _cut(shop, network, settings, share, folder, number)

    def left(network: fx.GraphModule, moment: str) -> float:
        return _left(shop, network, settings, folder, moment)

    network, rounds = _in_rounds(shop, task, settings, folder, network, cut, left)
    reached = rounds[-1]["left"]
    if reached > settings.keep * (1 + TARGET_TOLERANCE):
        why = (
            "the cuts did not bring it down further" if settings.target == "latency" else "every layer is at its least"
        )
        shop.progress.warn(f"{task.name}: {settings.keep:.0%} were to be left, and {reached:.1%} are: {why}")
    sentences = [f"blocks: those that end in {', '.join(dropped)} are gone"] if dropped else []
    sentences += [f"compose: {name} and the layer after it are one" for name in composed]
    sentences.append(f"{settings.describe()}; {reached:.1%} are left")
    kept = {group.name: group.width for group in find_groups(network, shop.example, settings.channels)}
    channels = {
        name: {"width": whole[name], "kept": kept[name], "losses": losses}
        for name, losses in json.loads((folder / SENSITIVITY_FILE).read_text("utf-8")).items()
    }
    made = {"sentences": sentences, "composed": composed, "dropped": dropped}
    _finish(folder, network, {**made, "rounds": rounds, "channels": channels})


def _dropped_blocks(shop: Workshop, task: Task, settings: Prune, folder: Path, network: fx.GraphModule) -> list[str]:
    """Names of the residual blocks' sums that go; chosen once, since the rounds rest on the choice."""
    path = folder / BLOCKS_FILE
    if settings.blocks and not path.exists():
        with shop.progress.step(f"{task.name}: blocks to spare"):
            chosen = blocks_to_spare(
                network,
                settings.blocks,
                lambda one: shop.lesson.loss_for(one, settings.losses)[0],
                shop.probe(settings.probe),
            )
        write_whole(path, json.dumps(chosen).encode())
    return [name for name, _ in json.loads(path.read_text("utf-8"))] if settings.blocks else []


def _prune_weights(shop: Workshop, task: Task, settings: Prune, folder: Path) -> None:
    parent = shop.network(task.parent)

    def cut(network: fx.GraphModule, share: float, number: int) -> fx.GraphModule:
        masked = copy.deepcopy(network)
        mask(masked, share)
        return masked

    def left(network: fx.GraphModule, moment: str) -> float:
        return density(network)

    network, rounds = _in_rounds(shop, task, settings, folder, copy.deepcopy(parent), cut, left)
    sizes = [f"{compressed_bytes(one) / 1e6:.2f} MB" for one in (network, parent)]
    sentence = f"{settings.describe()}; compressed, the weights take {sizes[0]} instead of {sizes[1]}"
    _finish(folder, network, {"sentences": [sentence], "composed": [], "rounds": rounds})


def _in_rounds(
    shop: Workshop,
    task: Task,
    settings: Prune,
    folder: Path,
    network: fx.GraphModule,
    cut_to: Callable[[fx.GraphModule, float, int], fx.GraphModule],
    left: Callable[[fx.GraphModule, str], float],
) -> tuple[fx.GraphModule, list[dict[str, Any]]]:
    """Args:
        cut_to: gives a copy with a share of the quantity, for a round's number.
        left: gives the share that a network has, at a named moment.

    Returns:
        The network after the last cut, and what was left after each round.
    """
    start = left(network, "start")
    rounds: list[dict[str, Any]] = []
    for number in range(settings.rounds):
        cut, taught = folder / f"cut-{number}.pt", folder / f"taught-{number}.pt"
        if not cut.exists():
            network = cut_to(network, settings.share_after(number, start), number)
            _save_state(cut, network)
        _load_state(network, cut)
        if number + 1 < settings.rounds and settings.pictures:
            if not taught.exists():
                checkpoint, title = folder / f"checkpoint-{number}.pt", f"round {number + 1} of {settings.rounds}"
                schedule = Schedule(settings.pictures, shop.recipe.training.batch, settings.rate)
                lesson = shop.lesson.loss_for(network, settings.losses)
                _train(shop, network, lesson, schedule, FIRST_SEED + number, checkpoint, task, title)
                _save_state(taught, network)
            _load_state(network, taught)
        rounds.append({"round": number + 1, "left": left(network, f"round {number}")})
        _note(shop, "round", task=task.name, **rounds[-1])
    return network, rounds


def _cut(
    shop: Workshop, network: fx.GraphModule, settings: Prune, share: float, folder: Path, number: int
) -> fx.GraphModule:
    """A copy with as many channels less as bring it down to a share of the teacher.

    Time does not follow from a layer's widths, so where it is the target the cut is made anew, deeper or
    less deep, until the measurement agrees.
    """
    probe = shop.probe(settings.probe)
    groups = find_groups(network, shop.example, settings.channels)
    whole = cost_of(shop.teacher, settings, shop.example)
    aim = share
    if settings.target == "latency":
        aim *= cost_of(network, settings, shop.example) / whole
        aim /= _left(shop, network, settings, folder, f"before {number}")
    for attempt in range(LATENCY_ATTEMPTS):
        cut = copy.deepcopy(network)
        loss, _ = shop.lesson.loss_for(cut, settings.losses)
        rankings = prune_once(cut, settings, loss, probe, groups, aim * whole)
        left = _left(shop, cut, settings, folder, f"cut {number}.{attempt}")
        if settings.target != "latency" or abs(left / share - 1) < LATENCY_TOLERANCE:
            break
        aim *= share / left
    if number == 0:
        losses = {name: sensitivity(ranking) for name, ranking in rankings.items()}
        write_whole(folder / SENSITIVITY_FILE, json.dumps(losses).encode())
    return cut


def _left(shop: Workshop, network: fx.GraphModule, settings: Prune, folder: Path, moment: str) -> float:
    """Share of the teacher's quantity that a network has. A time once taken is kept: it decides what follows."""
    if settings.target != "latency":
        whole = cost_of(shop.teacher, settings, shop.example)
        return cost_of(network, settings, shop.example) / whole
    path = folder / LATENCIES_FILE
    taken: dict[str, float] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if moment not in taken:
        graphs = [clean(shop.export(one))[0] for one in (network, shop.teacher)]
        if settings.measured_in == "int8":
            multiple = shop.recipe.model.multiple
            graphs = [quantize(one, Quantize(), shop.calibration.inputs[:4], multiple)[0] for one in graphs]
        taken[moment] = latency_share(graphs[0], graphs[1], shop.serving_size)
        write_whole(path, json.dumps(taken).encode())
    return taken[moment]


def quantize_step(shop: Workshop, task: Task, folder: Path) -> None:
    settings = task.step.quantize
    assert settings
    inputs = shop.calibration.inputs
    facts: dict[str, Any] = {}
    if settings.method == "qat":
        graph, ranges, facts["curve"] = _learn_roundings(shop, task, settings, folder)
    else:
        (graph, _), ranges = shop.float_graph(task.parent), None
    if settings.mixed:
        costs = _layer_costs(shop, task, settings, graph, ranges, folder)
        kept = layers_to_keep(costs, settings.max_loss, settings.slower)
        settings = replace(settings, float_layers=(*settings.float_layers, *kept))
        facts["layers"] = {name: asdict(cost) for name, cost in costs.items()}
    with shop.progress.bar(f"{task.name}: {settings.describe()}", len(inputs)) as advance:
        model, done = quantize(graph, settings, inputs, shop.recipe.model.multiple, advance, ranges=ranges)
    with disk_full_said():
        write_whole(folder / MODEL_FILE, model.SerializeToString(deterministic=True))
    _write_facts(folder, {"sentences": done, **facts})


def _layer_costs(
    shop: Workshop,
    task: Task,
    settings: Quantize,
    graph: onnx.ModelProto,
    ranges: Mapping[str, tuple[float, float]] | None,
    folder: Path,
) -> dict[str, LayerCost]:
    """What each layer gains and loses in INT8, measured once: it decides what the file will be."""
    path = folder / LAYERS_FILE
    if not path.exists():
        inputs = shop.calibration.inputs
        judging = inputs[:: max(1, len(inputs) // HELD_OUT)]
        calibrating = [one for one in inputs if not any(one is other for other in judging)] or inputs
        layers = sum(node.op_type == "Conv" for node in graph.graph.node)
        multiple = shop.recipe.model.multiple
        with shop.progress.bar(f"{task.name}: measure each layer", layers) as advance:
            costs = measure_layers(graph, settings, calibrating, multiple, judging, advance, ranges=ranges)
        write_whole(path, json.dumps({name: asdict(cost) for name, cost in costs.items()}).encode())
    return {name: LayerCost(**cost) for name, cost in json.loads(path.read_text("utf-8")).items()}


def _learn_roundings(
    shop: Workshop, task: Task, settings: Quantize, folder: Path
) -> tuple[onnx.ModelProto, dict[str, tuple[float, float]], list[tuple[int, float]]]:
    """Quantization-aware training: the clean float graph with its new weights, the ranges, the curve."""
    network = qat.prepare(shop.network(task.parent), settings.weight_grid)

    def planes() -> Iterator[Tensor]:
        for one in shop.calibration.inputs:
            yield shop.normalisation.apply(torch.from_numpy(one).permute(0, 3, 1, 2).float())

    qat.observe(network, planes, settings.percentile if settings.range == "percentile" else 100.0)
    schedule = Schedule(settings.pictures, shop.recipe.training.batch, settings.rate)
    lesson = shop.lesson.loss_for(network)
    curve = _train(shop, network, lesson, schedule, FIRST_SEED, folder / "checkpoint.pt", task)
    graph = shop.export(qat.ready_to_export(network), qat.ROUNDED_TOLERANCE)
    ranges = qat.take_ranges(graph)
    return clean(graph)[0], ranges, curve


def _train(
    shop: Workshop,
    network: fx.GraphModule,
    lesson: tuple[BatchLoss, Sequence[nn.Module]],
    schedule: Schedule,
    seed: int,
    checkpoint: Path,
    task: Task,
    title: str = "",
) -> list[tuple[int, float]]:
    loss, extra = lesson
    if any(one.step.prune and one.step.prune.scope == "weights" for one in task.chain):
        hold_zeros(network)
    with shop.progress.training(f"{task.name}: {task.step.describe()} {title}", schedule.steps) as show:
        agreement = math.nan
        look_every = max(STEPS_BETWEEN_LOOKS, math.ceil(schedule.steps / LOOKS))

        def report(moment: Moment) -> None:
            nonlocal agreement
            at_end = moment.step == moment.steps
            looks = at_end or moment.step % look_every == 0
            if looks:
                agreement = shop.watch.agreement(network)
            show(moment.step, moment.loss, agreement)
            if shop.record and (at_end or moment.step % REPORT_EVERY == 0):
                shop.record.measure(task.name, moment.step, {"loss": moment.loss})
            if shop.record and looks and math.isfinite(agreement):
                shop.record.measure(task.name, moment.step, {shop.watch.figure: agreement})

        scenes = shop.scenes(seed)
        curve = train(network, loss, scenes, schedule, checkpoint, report, extra, shop.normalisation, shop.shard)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return curve


def _note(shop: Workshop, kind: str, **facts: Any) -> None:
    if shop.record:
        shop.record.event(kind, **facts)


def _finish(folder: Path, network: fx.GraphModule, facts: Mapping[str, Any]) -> None:
    _save_state(folder / STATE_FILE, network)
    _write_facts(folder, facts)
    for leftover in [*folder.glob("checkpoint*.pt"), *folder.glob("cut-*.pt"), *folder.glob("taught-*.pt")]:
        leftover.unlink()


def _save_state(path: Path, network: fx.GraphModule) -> None:
    save_tensors(path, network.state_dict())


def _load_state(network: fx.GraphModule, path: Path) -> None:
    fit_to(network, torch.load(path, weights_only=True))


def _write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    write_whole(folder / FACTS_FILE, json.dumps(facts, indent=1).encode())
