"""Metrics in the protobuf format of Prometheus, which alone has native histograms.

Source: github.com/prometheus/client_model, io/prometheus/client/metrics.proto; protobuf.dev, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from watchdog.web.native_histograms import SCHEMA, NativeHistogram

CONTENT_TYPE: Final = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
# enum MetricType, and the field of Metric that has the value.
_TYPES: Final = {"counter": (0, 3), "gauge": (1, 2), "unknown": (3, 5), "histogram": (4, 7)}
_VARINT, _DOUBLE, _BYTES = 0, 1, 2  # wire types
_MORE, _SEVEN_BITS = 0x80, 0x7F

Labels = tuple[tuple[str, str], ...]


class Sample(Protocol):
    """One sample of a text format."""

    @property
    def name(self) -> str:
        """Return the name with its ending."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Return the values of the labels by name."""

    @property
    def value(self) -> float:
        """Return the number."""


class Family(Protocol):
    """All samples of one metric."""

    name: str
    documentation: str
    type: str

    @property
    def samples(self) -> Sequence[Sample]:
        """Return the samples, those of one histogram together."""


def encode_family(family: Family, native: Mapping[Labels, NativeHistogram]) -> bytes:
    """Return a MetricFamily with its length before it. `native`: histograms by the labels of their series."""
    kind, field = _TYPES[family.type]
    if family.type == "histogram":
        name, metrics = family.name, _histograms(family.samples, native)
    else:
        # A counter has its ending `_total` in this format too.
        name = family.samples[0].name if family.samples else family.name
        metrics = (_metric(tuple(one.labels.items()), _message(field, _double(1, one.value))) for one in family.samples)
    fields = [_text(1, name), _text(2, family.documentation), _number(3, kind)]
    content = b"".join([*fields, *(_message(4, one) for one in metrics)])
    return _varint(len(content)) + content


def _histograms(samples: Iterable[Sample], native: Mapping[Labels, NativeHistogram]) -> Iterator[bytes]:
    """Yield a Metric for each series; its samples follow each other, the sum last."""
    fields: list[bytes] = []
    for sample in samples:
        labels = tuple((name, value) for name, value in sample.labels.items() if name != "le")
        if sample.name.endswith("_bucket"):
            bound = float(sample.labels["le"])
            fields.append(_message(3, _number(1, int(sample.value)) + _double(2, bound)))
        elif sample.name.endswith("_count"):
            fields.append(_number(1, int(sample.value)))
        else:
            fields.append(_double(2, sample.value))
            if labels in native:
                fields.append(_native(native[labels]))
            yield _metric(labels, _message(7, b"".join(fields)))
            fields = []


def _native(histogram: NativeHistogram) -> bytes:
    spans = (_message(12, _signed(1, offset) + _number(2, length)) for offset, length in histogram.spans)
    deltas = (_signed(13, delta) for delta in histogram.deltas)
    zeros = _double(6, histogram.zero_threshold) + _number(7, histogram.zero_count)
    return b"".join([_signed(5, SCHEMA), zeros, *spans, *deltas])


def _metric(labels: Labels, value: bytes) -> bytes:
    return b"".join([*(_message(1, _text(1, name) + _text(2, text)) for name, text in labels), value])


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(content)) + content


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | _DOUBLE) + struct.pack("<d", value)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _signed(field: int, value: int) -> bytes:
    """Return a number with its sign in the lowest bit."""
    return _number(field, value << 1 if value >= 0 else (-value << 1) - 1)


def _varint(value: int) -> bytes:
    octets = bytearray()
    while value > _SEVEN_BITS:
        octets.append(value & _SEVEN_BITS | _MORE)
        value >>= 7
    octets.append(value)
    return bytes(octets)
