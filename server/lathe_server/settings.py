"""The server's settings: flags over environment (LATHE_…) over a TOML file over defaults."""

from __future__ import annotations

import argparse
import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lathe.config import KIND_NAMES, nearest, parse, read
from lathe.connection import VARIABLES, is_loopback
from lathe.errors import InvalidInput
from lathe_server.engine_names import DEFAULT, ENGINES
from lathe_server.limits import MAX_PIXELS

ENVIRONMENT_PREFIX = "LATHE_"
ENGINE_MISSING = ("refuse", FALL_BACK := "fall-back")
WORKER_CORES = ("any", OWN_CORES := "own")
LOG_FORMATS = ("console", JSON_LINES := "json")
GALLERY_KEY_VARIABLE = "LATHE_GALLERY_KEY_HEX"
"""Environment variable that holds the 64 digits of a gallery's key, where it lies in no file."""
GALLERY_SEARCH = (EXACT := "exact", FAISS := "faiss")
SWITCH = (ON := "on", "off")
MAX_SECONDS, MAX_STREAMS = 2_000_000, 1_000_000
"""gRPC counts milliseconds in 32 bits."""
LIVE = (NO_PAGE := "off", "blurred", PLAIN := "plain")
LOG_LEVELS = ("debug", "info", "warning", "error")


def _setting(default: Any, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Attributes are the flags with underscores, and the keys of the TOML file."""

    grpc: str = _setting("127.0.0.1:8500", "address of inference, health and reflection; port 0 takes a free one")
    http: str = _setting(
        "127.0.0.1:8501", "address of /metrics, /healthz, /readyz and /v2, the Open Inference Protocol"
    )
    live: str = _setting(
        NO_PAGE, "page /live of cameras, for browsers on this machine: off, blurred, or plain, which shows faces"
    )
    control: str = _setting("127.0.0.1:8502", "address of ControlService; keep it off public networks")
    tokens: str = _setting("", "TOML file of the tokens that callers need; without one every port takes everybody")
    tls_certificate: str = _setting("", "PEM file of the certificate of all ports; without one they talk in plain text")
    tls_key: str = _setting("", "PEM file of its key")
    tls_client_ca: str = _setting("", "PEM file of the root whose certificates callers have to show")
    server_name: str = _setting("", "by which it knows its experiments after a restart; default: host and control port")
    workers: int = _setting(0, "worker threads; 0 takes as many as there are cores")
    worker_cores: str = _setting("any", "where workers run: any, or own, which keeps each to a core of its own")
    engine: str = _setting(DEFAULT, f"what runs the networks: {', '.join(ENGINES)}; auto takes the faster on a CPU")
    engine_missing: str = _setting("refuse", "where that engine is missing: refuse, or fall-back to the CPU")
    max_batch: int = _setting(1, "frames that workers run together, for GPUs; it takes as many workers")
    batch_wait_seconds: float = _setting(0.002, "how long the first frame of a batch waits for others")
    max_message_bytes: int = _setting(32 * 2**20, "largest request message")
    max_frame_pixels: int = _setting(MAX_PIXELS, "largest picture that is decoded, in pixels")
    max_streams: int = _setting(1000, "streams that may be open at once")
    brake_above: float = _setting(
        0.8, "load to which streams of many times their share may fill the workers; 1 is none"
    )
    max_unread_seconds: float = _setting(10.0, "a stream whose client takes no response for so long is ended")
    reflection: str = _setting("on", "whether gRPC clients may ask what methods there are: on or off")
    handshake_seconds: float = _setting(10.0, "a connection that has not begun to speak gRPC by then is closed")
    keepalive_seconds: float = _setting(
        20.0, "a silent connection is asked whether it lives, and closed after half as long again"
    )
    max_connection_seconds: float = _setting(
        0.0, "a connection is asked to come anew after so long, so that balancers can move it; 0 is never"
    )
    max_model_bytes: int = _setting(2 * 2**30, "largest model file that is loaded")
    max_memory_bytes: int = _setting(0, "near it frames are refused; 0 takes the container's limit, if it has one")
    max_slowdown: float = _setting(
        4.0,
        "a variant is not loaded that takes so many times its card's CPU time on the same processor; 0 does not look",
    )
    signed_by: str = _setting("", "public key, a PEM file: only variants that its owner has signed are loaded")
    cache: str = _setting("", "folder for copies of object stores; default ~/.cache/lathe")
    gallery: str = _setting("", "file of enrolled faces, made where there is none; needs lathe[gallery]")
    gallery_key: str = _setting("", "file of its key, 32 bytes or 64 hex digits; or LATHE_GALLERY_KEY_HEX")
    gallery_model: str = _setting("face-id", "pipeline that finds and embeds its faces")
    gallery_fmr: float = _setting(0.001, "false match rate at which it decides, where a request names none")
    gallery_retention_days: float = _setting(0.0, "after which a record is deleted; 0 keeps it until it is deleted")
    gallery_keep_faces: str = _setting("off", "whether it keeps the faces, for re-enrolment: on or off")
    gallery_search: str = _setting(
        EXACT, "how it finds whose a face is: exact, or faiss beyond 100 000 templates; that needs lathe[faiss]"
    )
    gallery_max_records: int = _setting(100_000, "most templates that it holds")
    drain_seconds: float = _setting(10.0, "time that frames in hand get after SIGTERM")
    load_seconds: float = _setting(60.0, "longest time that a variant may take to load and warm up")
    log_format: str = _setting("console", f"lines of the log: {' or '.join(LOG_FORMATS)}")
    log_level: str = _setting("info", f"least of what is logged: {', '.join(LOG_LEVELS)}; debug has a line a frame")
    trace_to: str = _setting("", "URL of an OpenTelemetry collector, such as http://localhost:4318; needs lathe[otel]")
    trace_share: float = _setting(0.01, "share of the frames that are traced, where no caller decides")
    price_per_core_hour: float = _setting(0.0, "prices each prediction's CPU seconds; 0 exports no cost")
    price_per_instance_hour: float = _setting(0.0, "price of the whole machine, of which a core has its part")
    price_per_gpu_hour: float = _setting(0.0, "beside price_per_core_hour: prices the time of the graphics processor")
    currency: str = _setting("USD", "label of the cost metrics")
    watts_per_core: float = _setting(5.0, "of a busy core, for energy where no meter can be read")
    watts_per_gpu: float = _setting(70.0, "of a busy graphics processor, where its meter cannot be read")
    carbon_grams_per_kwh: float = _setting(0.0, "of the electricity; 0 exports no carbon, unless there is a country")
    objective_seconds: float = _setting(0.1, "in which frames shall be answered, from their arrival")
    objective_share: float = _setting(0.99, "of the frames that shall be")
    stream_labels: str = _setting("", "streams with metrics of their own: names and patterns, such as gate-*,lobby-1")
    carbon_country: str = _setting("", "three letters, such as DEU: its electricity, by the table of lathe[carbon]")

    def __post_init__(self) -> None:
        for name in (
            "max_message_bytes",
            "max_frame_pixels",
            "max_streams",
            "brake_above",
            "max_batch",
            "max_unread_seconds",
            "handshake_seconds",
            "keepalive_seconds",
            "max_model_bytes",
            "load_seconds",
            "objective_seconds",
            "gallery_max_records",
        ):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0")
        for name in (
            "workers",
            "batch_wait_seconds",
            "max_memory_bytes",
            "max_slowdown",
            "drain_seconds",
            "max_connection_seconds",
            "price_per_core_hour",
            "price_per_instance_hour",
            "price_per_gpu_hour",
            "watts_per_core",
            "watts_per_gpu",
            "carbon_grams_per_kwh",
            "gallery_retention_days",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must not be negative or infinite")
        for name in ("handshake_seconds", "keepalive_seconds", "max_connection_seconds", "drain_seconds"):
            if getattr(self, name) > MAX_SECONDS:
                raise ValueError(f"{name} must be at most {MAX_SECONDS}")
        if self.max_streams > MAX_STREAMS:
            raise ValueError(f"max_streams must be at most {MAX_STREAMS}")
        if self.price_per_instance_hour and (self.price_per_core_hour or self.price_per_gpu_hour):
            raise ValueError("price_per_instance_hour and the prices of cores and of a GPU exclude each other")
        if self.carbon_grams_per_kwh and self.carbon_country:
            raise ValueError("carbon_grams_per_kwh and carbon_country exclude each other")
        if not 0 < self.objective_share < 1:
            raise ValueError("objective_share must be above 0 and below 1")
        if not 0 < self.gallery_fmr < 1:
            raise ValueError("gallery_fmr must be above 0 and below 1")
        if not 0 <= self.trace_share <= 1:
            raise ValueError("trace_share must be from 0 to 1")
        if self.trace_to and not self.trace_to.startswith(("http://", "https://")):
            raise ValueError("trace_to must be a URL that begins with http:// or https://")
        if bool(self.tls_certificate) != bool(self.tls_key) or (self.tls_client_ca and not self.tls_certificate):
            raise ValueError("tls_certificate and tls_key go together, and tls_client_ca with them")
        closed = {
            "engine": ENGINES,
            "engine_missing": ENGINE_MISSING,
            "worker_cores": WORKER_CORES,
            "log_format": LOG_FORMATS,
            "reflection": SWITCH,
            "gallery_keep_faces": SWITCH,
            "gallery_search": GALLERY_SEARCH,
            "log_level": LOG_LEVELS,
            "live": LIVE,
        }
        for name, choices in closed.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}{nearest(getattr(self, name), choices)}")
        for name in ("grpc", "http", "control"):
            host, separator, port = getattr(self, name).rpartition(":")
            if not (host and separator and port.isdecimal() and int(port) < 65536):
                raise ValueError(f"{name} must be HOST:PORT, not {getattr(self, name)}")
        if not (is_loopback(self.control) or self.tokens or self.tls_client_ca):
            raise ValueError("control may be opened to other machines with tokens or tls_client_ca only")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for each setting, and `--config`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file of settings")
    hints = typing.get_type_hints(Settings)
    for setting in dataclasses.fields(Settings):
        default = f"default {setting.default}; {ENVIRONMENT_PREFIX}{setting.name.upper()}"
        parser.add_argument(
            f"--{setting.name.replace('_', '-')}",
            type=hints[setting.name],
            default=argparse.SUPPRESS,
            metavar="HOST:PORT"
            if setting.name in ("grpc", "http", "control")
            else hints[setting.name].__name__.upper(),
            help=f"{setting.metadata['help']} ({default})",
        )


def load_settings(flags: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Merges the three sources.

    Raises:
        NotFound: the file does not exist.
        InvalidInput: an unknown key, or a value that makes no sense.
    """
    table, text, name = read(flags.config) if flags.config else ({}, "", "settings")
    merged = dict(table)
    hints = typing.get_type_hints(Settings)
    for key, kind in hints.items():
        variable = ENVIRONMENT_PREFIX + key.upper()
        if variable in environment:
            try:
                merged[key] = kind(environment[variable])
            except ValueError as error:
                raise InvalidInput(f"{variable} must be {KIND_NAMES[kind]}") from error
        if hasattr(flags, key):
            merged[key] = getattr(flags, key)
    return parse(Settings, merged, text, name)


def unknown_variables(
    environment: Mapping[str, str], known: frozenset[str] = frozenset({"LATHE_DATA", GALLERY_KEY_VARIABLE, *VARIABLES})
) -> list[str]:
    """Variables with Lathe's prefix that set nothing, each with the nearest name, for a warning.

    They cannot be errors: Kubernetes puts LATHE_PORT and the like into every pod beside a service named lathe.
    """
    names = {ENVIRONMENT_PREFIX + setting.name.upper() for setting in dataclasses.fields(Settings)} | known
    return [
        f"{name} sets nothing{nearest(name, names)}"
        for name in sorted(environment)
        if name.startswith(ENVIRONMENT_PREFIX) and name not in names
    ]
