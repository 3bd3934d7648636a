"""ReasonLoop: RLoop, RLSP and vanilla RL on verifiable problems, from problems to a better model.

The Python API is these names; docs/api.md is its page. Each is loaded when it is first used, so that importing the package
takes no time and no torch.

    import reasonloop

    policy = reasonloop.Policy.load("countdown")
    task = reasonloop.load_task("countdown")
    groups = reasonloop.sample(policy, task, task.train[:4])
    print(groups[0])
"""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))  # `python -m` puts the current folder before all that is installed

from importlib import import_module
from typing import TYPE_CHECKING, Any

from reasonloop.version import VERSION as __version__

if TYPE_CHECKING:
    from reasonloop.api.evaluation import Estimate, Evaluation, evaluate
    from reasonloop.api.learner import Learner, objectives
    from reasonloop.api.runs import Run, run
    from reasonloop.api.sampling import experts, sample
    from reasonloop.api.task import Task, load_task
    from reasonloop.errors import InputError, RunError
    from reasonloop.learner.losses import Objective
    from reasonloop.policy.policy import Policy
    from reasonloop.records import Group, Judgement, Problem, Rollout, Verdict
    from reasonloop.store.experts import Experts

_HOMES = {
    "reasonloop.api.evaluation": ("Estimate", "Evaluation", "evaluate"),
    "reasonloop.api.learner": ("Learner", "objectives"),
    "reasonloop.api.runs": ("Run", "run"),
    "reasonloop.api.sampling": ("experts", "sample"),
    "reasonloop.api.task": ("Task", "load_task"),
    "reasonloop.errors": ("InputError", "RunError"),
    "reasonloop.learner.losses": ("Objective",),
    "reasonloop.policy.policy": ("Policy",),
    "reasonloop.records": ("Group", "Judgement", "Problem", "Rollout", "Verdict"),
    "reasonloop.store.experts": ("Experts",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022  (in the order in which they are needed)
    "Policy",
    "Problem",
    "Rollout",
    "Group",
    "Verdict",
    "Judgement",
    "load_task",
    "Task",
    "sample",
    "Learner",
    "objectives",
    "Objective",
    "experts",
    "Experts",
    "evaluate",
    "Evaluation",
    "Estimate",
    "run",
    "Run",
    "InputError",
    "RunError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from reasonloop.machine.threads import wait_briefly

        wait_briefly()  # before torch is loaded
        found = getattr(import_module(_HOME[name]), name)
        globals()[name] = found
        return found
    from reasonloop.own import nearest

    hint = "" if name.startswith("_") else f"; {nearest(name, [one for one in __all__ if one != '__version__'])}"
    raise AttributeError(f"module 'reasonloop' has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
