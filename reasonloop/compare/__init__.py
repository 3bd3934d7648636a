"""`reasonloop compare`: finished runs as arms side by side, paired by seed and by problem, at equal rollouts."""

from reasonloop.compare.arms import Arm, Arms, read_arms
from reasonloop.compare.command import compare_runs
from reasonloop.compare.study import Comparison, compare_arms, results

__all__ = ["Arm", "Arms", "Comparison", "compare_arms", "compare_runs", "read_arms", "results"]
