"""The recipe of a run: what `-c recipe.yaml`, `-o key=value` and the flags fill in.

Imports no torch. Every field has one name in YAML, on the command line and in an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Choice(BaseModel):
    """A component of a plugin by name; the other keys are its own options.

    `method: lora` and `method: {name: lora, r: 16}` are both accepted.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The component's own options."""
        return dict(self.model_extra or {})


class DataSource(_Options):
    """One data set of a mixture."""

    path: Path
    weight: float | None = Field(default=None, gt=0)
    """Its share of the rows that are trained on, relative to the others'; None: all rows."""
    format: str | None = None
    """The layout of its rows; None: `data.format`."""
    columns: dict[str, str] | None = None
    """As `data.columns`, which it replaces."""


class DataOptions(_Options):
    """What is learnt, and what is held out."""

    train: Path | tuple[DataSource, ...]
    """The data file, folder or `hub:owner/name`, or several with weights; in a recipe file a
    relative path counts from the recipe's folder, or else from here."""
    format: str | None = None
    """The layout of its rows; None: recognised from the first row."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Which of the file's columns stands for a column of the format."""
    holdout: float | Path = 0.05
    """The share of prompts that is held out, or a file of its own."""
    prompt_format: Literal["plain", "chat", "auto"] = "auto"
    """What the model is shown; auto: chat for chats where the base has a template, else plain."""
    answers: Literal["last", "all"] = "last"
    """Which answers of a chat are learnt: its last alone, or every turn of the assistant."""

    @field_validator("train", mode="before")
    @classmethod
    def _are_sources(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            if not value:
                raise ValueError("an empty list is no data")
            return [{"path": part} if isinstance(part, str | Path) else part for part in value]
        return value

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """What `train` names, with the format and columns that hold for each."""
        if isinstance(self.train, Path):
            return (DataSource(path=self.train, format=self.format, columns=self.columns),)
        return tuple(
            source.model_copy(
                update={
                    "format": source.format or self.format,
                    "columns": self.columns if source.columns is None else source.columns,
                }
            )
            for source in self.train
        )

    @field_validator("holdout")
    @classmethod
    def _is_share(cls, value: float | Path) -> float | Path:
        if isinstance(value, float) and not 0 <= value < 1:
            raise ValueError("a share is at least 0 and below 1")
        return value


class TrainingOptions(_Options):
    """How the steps are taken. Lengths are in tokens, intervals in optimizer steps."""

    epochs: float = Field(default=3, gt=0)
    max_steps: int | None = Field(default=None, gt=0)
    """Stops there, whatever `epochs` says."""
    lr: float | None = Field(default=None, gt=0)
    """The peak learning rate; None: what suits the method."""
    batch_size: int = Field(default=16, gt=0)
    accumulation: int = Field(default=1, gt=0)
    """Batches a step."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """The share of the steps in which the learning rate rises."""
    schedule: Literal["linear", "cosine", "cosine-restarts", "constant"] = "linear"
    restarts: int = Field(default=3, gt=0)
    """How often `cosine-restarts` begins anew at the peak."""
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"] = "adamw"
    """All but adamw are those of bitsandbytes: a state in 8 bits, or one that moves to the CPU's
    memory where the GPU's is full (paged, for GPUs only)."""
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, ge=0)
    """The largest norm of the gradient; 0: not clipped."""
    max_length: int = Field(default=1024, gt=1)
    """Longer rows are left out, and counted."""
    seed: int = Field(default=0, ge=0)
    eval_every: int | None = Field(default=None, gt=0)
    """Scores the hold-out so often; None: before and after only."""
    patience: int | None = Field(default=None, gt=0)
    """Ends after so many scores of the hold-out without a better one; None: never early."""
    keep: Literal["last", "best"] = "last"
    """Which weights are kept: the last step's, or those of the best score of the hold-out."""
    eval_rows: int = Field(default=200, gt=0)
    """At most so many held-out rows are scored."""
    save_every: int = Field(default=50, gt=0)
    """Keeps a checkpoint so often, for `--resume`."""
    gradient_checkpointing: bool = False
    """Less memory for more time."""
    group_by_length: bool = False
    """Batches of about equally long rows, which may teach less in as many steps: worth it only
    where rows are padded (with objectives other than sft) and their lengths differ much."""
    report_to: tuple[Literal["tensorboard", "trackio", "wandb", "mlflow"], ...] = ()
    """Where the metrics go besides the version."""
    input_moments: int | None = Field(default=None, ge=0, strict=True)
    """Keeps the second moment of each adapted module's inputs at this rank, for `adz merge
    --regmean`; 0: does not. None: 32, which takes a few MB, where the method can be merged."""

    @model_validator(mode="after")
    def _scores(self) -> TrainingOptions:
        if (self.patience or self.keep == "best") and not self.eval_every:
            raise ValueError("patience and keep=best need eval_every")
        return self


class TrainRecipe(_Options):
    """Everything that a run depends on."""

    name: str | None = None
    """The adapter's name; None: made from the data file's."""
    base: str | None = None
    """The base's name; None: the only one."""
    data: DataOptions
    method: Choice = Choice(name="lora")
    quantizer: Choice | None = None
    objective: Choice = Choice(name="sft")
    training: TrainingOptions = TrainingOptions()

    @field_validator("data", mode="before")
    @classmethod
    def _may_be_a_list(cls, value: Any) -> Any:
        return {"train": value} if isinstance(value, list | tuple) else value

    @field_validator("method", "quantizer", "objective", mode="before")
    @classmethod
    def _by_name(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str):
            return {"name": value}
        # `-o method.r=32` alone means the default method.
        default = {"method": "lora", "objective": "sft"}.get(info.field_name or "")
        if isinstance(value, dict) and default and "name" not in value:
            return {"name": default, **value}
        return value
