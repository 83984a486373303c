"""A comparison from the cards alone: what the variants' publication measured."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lathe.figures import (
    AGREEMENT,
    AP,
    COSINE,
    TMR,
    Comparison,
    Figures,
    Quality,
    common_reference,
    reference_first,
)
from lathe.v1 import card_pb2


def compare_cards(cards: Mapping[str, card_pb2.Card]) -> Comparison:
    """Average precision decides where every card has it for the same data and size, else agreement.

    Of embedding networks the true match rate does, at one false match rate and on the same faces, else the cosine.
    Cards hold no intervals of differences, so none are given.
    """
    reference = common_reference(cards)
    ordered = reference_first(cards, reference)
    if measured := _precision_of_all(ordered):
        quality_name = f"{AP} {measured[0]}"
    else:
        quality_name = _match_rate_of_all(ordered) or _likeness(ordered[reference])
    figures = {name: _figures(card, name == reference, reference, quality_name) for name, card in ordered.items()}
    return Comparison(
        reference,
        ordered,
        figures,
        quality_name,
        source=_source(ordered, figures, reference),
        facts={"from": "cards"},
    )


def _precision_of_all(cards: Mapping[str, card_pb2.Card]) -> tuple[str, int, int] | None:
    """Data and size of an average precision that all cards have."""
    known = [{_kind(one): None for one in card.quality if one.metric == "ap50"} for card in cards.values()]
    shared = [kind for kind in known[0] if all(kind in others for others in known)]
    return next((kind for kind in shared if "medium" in kind[0]), shared[0] if shared else None)


def _match_rate_of_all(cards: Mapping[str, card_pb2.Card]) -> str:
    """The name of a true match rate that all cards have, that at 1 in 1 000 first; empty where there is none."""
    first, *others = ([_match_rate(one).name for one in card.embedding.thresholds] for card in cards.values())
    shared = [name for name in first if all(name in known for known in others)]
    return min(shared, key=lambda name: not name.startswith(f"{TMR}0.001 "), default="")


def _match_rate(threshold: card_pb2.MatchThreshold) -> Quality:
    return Quality(f"{TMR}{threshold.fmr:g} {threshold.data}", 1 - threshold.fnmr)


def _likeness(card: card_pb2.Card) -> str:
    return COSINE if card.task == card_pb2.TASK_EMBEDDING else AGREEMENT


def _kind(quality: card_pb2.Quality) -> tuple[str, int, int]:
    return quality.data, quality.size.width, quality.size.height


def _figures(card: card_pb2.Card, is_reference: bool, reference: str, quality_name: str) -> Figures:
    qualities: dict[str, Quality] = {}
    for one in card.quality:
        name = f"{AP} {one.data}" if one.metric == "ap50" else one.metric
        qualities.setdefault(name, Quality(name, one.value))
    qualities |= {one.name: one for one in map(_match_rate, card.embedding.thresholds)}
    if is_reference:  # its own card has another's only where that one is not published here
        qualities.setdefault(_likeness(card), Quality(_likeness(card), 1.0))
    decides = qualities.pop(quality_name, None)
    latency = serving_latency(card)
    if not latency:
        return Figures((decides,) if decides else ())
    stages = latency.stages
    return Figures(
        qualities=(decides, *qualities.values()) if decides else (),
        infer_ms=stages.infer * 1e3,
        frame_ms=(stages.decode + stages.preprocess + stages.infer + stages.postprocess) * 1e3,
        speedup=latency.speedup if latency.reference_variant == reference else math.nan,
    )


def serving_latency(card: card_pb2.Card) -> card_pb2.Latency | None:
    """At the serving size where there is one, else the first."""
    fitting = [one for one in card.latency if one.size == card.serving_size]
    return next(iter(fitting or card.latency), None)


def _source(cards: Mapping[str, card_pb2.Card], figures: Mapping[str, Figures], reference: str) -> list[str]:
    latencies = [latency for card in cards.values() if (latency := serving_latency(card))]
    sentences = ["All figures are those of the cards, measured when the variants were published."]
    machines = sorted({f"{latency.cpu}, {latency.runtime}" for latency in latencies})
    if len(machines) == 1:
        sentences.append(f"Measured on {machines[0]}; networks run on one thread.")
    elif machines:
        sentences.append(f"Latencies are of different machines or runtimes and not comparable: {'; '.join(machines)}.")
    sizes = sorted({f"{latency.size.width}×{latency.size.height}" for latency in latencies})
    if len(sizes) == 1:
        embeds = cards[reference].task == card_pb2.TASK_EMBEDDING
        sentences.append(
            f"Faces are aligned to {sizes[0]}." if embeds else f"Pictures are scaled to fit into {sizes[0]}."
        )
    elif sizes:
        sentences.append(f"Latencies are of different sizes and not comparable: {', '.join(sizes)}.")
    fewest = min((latency.runs for latency in latencies), default=0)
    if latencies and fewest < 30:
        sentences.append(f"The latency of a card rests on {fewest} pictures: it is a hint, not a measurement.")
    if any(one.name.startswith(TMR) for figure in figures.values() for one in figure.qualities):
        sentences.append(
            f"{TMR}0.001 is the share of comparisons of one person that match (1 − FNMR) where one of 1 000 "
            "comparisons of two people does; other rates likewise."
        )
    incomplete = [name for name, one in figures.items() if not one.is_complete]
    if incomplete:
        sentences.append(f"Without quality or latency in their cards, and so in no plot: {', '.join(incomplete)}.")
    return sentences
