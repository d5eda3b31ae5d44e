"""The section `launcher` of the config."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from lth_cli.config.values import JOB_MEMORY, JOB_TIME, Section, SlurmText


class Launcher(Section):
    """Where the points of a sweep run; changes no number but through `threads=auto`."""

    kind: Literal["serial", "local", "slurm"] = Field(
        "serial",
        description="One after another, in processes on this machine, or as jobs of a Slurm cluster.",
    )
    workers: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="local: points at a time.")
    gpus: (
        Annotated[int, Field(ge=0, le=64)]
        | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
        | None
    ) = Field(None, description="local: list of GPUs dealt to the workers in turn. slurm: GPUs of a job.")
    partition: SlurmText | None = Field(None, description="slurm: null is the cluster's default.")
    account: SlurmText | None = Field(None, description="slurm: null is the person's default.")
    time: Annotated[str, Field(pattern=JOB_TIME)] = Field(
        "1h", description="slurm: of a job, 30min or 12h; one that runs out of it is requeued and goes on."
    )
    memory: Annotated[str, Field(pattern=JOB_MEMORY)] = Field(
        "8G", description="slurm: of a job, 500M or 16G."
    )
    cpus: Annotated[int, Field(ge=1, le=1024)] = Field(
        2, description="slurm: of a job; threads=auto is this number."
    )
    parallel: Annotated[int, Field(ge=1)] | None = Field(
        None, description="slurm: most jobs at a time; null is as many as the cluster allows."
    )
    requeues: Annotated[int, Field(ge=0)] = Field(
        100, description="slurm: how often a job may run out of time."
    )
    wait: bool = Field(False, description="slurm: stay until every job has ended.")
    extra: dict[str, SlurmText | int | bool] = Field(
        default_factory=dict, description="slurm: further options of sbatch, for example qos."
    )

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, Any]) -> dict[str, Any]:
        taken = sorted({"array", "error", "open-mode", "output", "signal", "wrap"} & extra.keys())
        if taken:
            raise ValueError(f"lth sets {', '.join(taken)} itself")
        if wrong := [name for name in extra if not re.fullmatch(r"[a-z][a-z-]*", name)]:
            raise ValueError(f"{wrong[0]!r} is not an option of sbatch; write qos, mail-type and the like")
        return extra

    @model_validator(mode="after")
    def _gpus_fit(self) -> Launcher:
        if self.gpus is not None and isinstance(self.gpus, list) != (self.kind == "local"):
            accepted = "a list such as [0,1]" if self.kind == "local" else "a number"
            raise ValueError(f"launcher.gpus: launcher={self.kind} takes {accepted}, got {self.gpus!r}")
        return self
