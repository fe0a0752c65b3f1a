"""What an implementation must be able to do: one small Protocol a kind.

Nothing here imports torch; tensors and models appear in annotations only.
"""

from __future__ import annotations

from adapterhub.protocols.convert import ConvertibleMethod, WeightUpdate
from adapterhub.protocols.data import Example, Format, Metric, WritableFormat
from adapterhub.protocols.merge import (
    Coordinates,
    Factors,
    InputMoments,
    MergedModule,
    MergeRule,
    MergeSpace,
    SurveyingRule,
)
from adapterhub.protocols.progress import Progress, Task
from adapterhub.protocols.registry import (
    CollectReport,
    Finding,
    Lease,
    Listing,
    LogEntry,
    Problem,
    Registry,
    Repaired,
)
from adapterhub.protocols.remote import Remote, RemoteFile, RemoteVersion, TransferInterruptedError
from adapterhub.protocols.serve import (
    Derivations,
    Engine,
    Limits,
    LogFormat,
    ServerStatus,
    ServeSettings,
)
from adapterhub.protocols.train import (
    CalibratedMethod,
    Fold,
    FoldingMethod,
    JointObjective,
    LowRank,
    LowRankMethod,
    Method,
    Objective,
    Quantizer,
    SteppingMethod,
)

__all__ = [
    "CalibratedMethod",
    "CollectReport",
    "ConvertibleMethod",
    "Coordinates",
    "Derivations",
    "Engine",
    "Example",
    "Factors",
    "Finding",
    "Fold",
    "FoldingMethod",
    "Format",
    "InputMoments",
    "JointObjective",
    "Lease",
    "Limits",
    "Listing",
    "LogEntry",
    "LogFormat",
    "LowRank",
    "LowRankMethod",
    "MergeRule",
    "MergeSpace",
    "MergedModule",
    "Method",
    "Metric",
    "Objective",
    "Problem",
    "Progress",
    "Quantizer",
    "Registry",
    "Remote",
    "RemoteFile",
    "RemoteVersion",
    "Repaired",
    "ServeSettings",
    "ServerStatus",
    "SteppingMethod",
    "SurveyingRule",
    "Task",
    "TransferInterruptedError",
    "WeightUpdate",
    "WritableFormat",
]
