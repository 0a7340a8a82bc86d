from collections.abc import Callable

from prometheus_client import CollectorRegistry

def choose_encoder(accept_header: str) -> tuple[Callable[[CollectorRegistry], bytes], str]: ...
