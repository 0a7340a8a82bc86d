from collections.abc import Callable, Iterable
from typing import Protocol

from prometheus_client.core import Metric

class _Collector(Protocol):
    def collect(self) -> Iterable[Metric]: ...

class CollectorRegistry:
    def __init__(self, auto_describe: bool = ...) -> None: ...
    def register(self, collector: _Collector) -> None: ...
    def collect(self) -> Iterable[Metric]: ...

class ProcessCollector:
    def __init__(
        self,
        namespace: str = ...,
        pid: Callable[[], int | str] = ...,
        proc: str = ...,
        registry: CollectorRegistry | None = ...,
    ) -> None: ...
