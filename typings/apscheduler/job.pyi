from collections.abc import Callable
from datetime import datetime

from apscheduler.triggers.base import BaseTrigger

class Job:
    id: str
    func: Callable[[], None]
    trigger: BaseTrigger
    next_run_time: datetime
