import logging
from collections.abc import Callable, Mapping
from datetime import datetime, tzinfo

from apscheduler.executors.base import BaseExecutor
from apscheduler.job import Job
from apscheduler.triggers.base import BaseTrigger

class BackgroundScheduler:
    def __init__(
        self, *, timezone: tzinfo, executors: Mapping[str, BaseExecutor], logger: logging.Logger
    ) -> None: ...
    def add_job(
        self,
        func: Callable[[], None],
        *,
        trigger: BaseTrigger,
        id: str,
        name: str,
        next_run_time: datetime,
        misfire_grace_time: int | None,
        coalesce: bool,
        max_instances: int,
    ) -> Job: ...
    def get_jobs(self) -> list[Job]: ...
    def modify_job(self, job_id: str, *, next_run_time: datetime) -> Job: ...
    def reschedule_job(self, job_id: str, *, trigger: BaseTrigger) -> Job: ...
    def start(self) -> None: ...
    def shutdown(self, wait: bool = True) -> None: ...
    def wakeup(self) -> None: ...
