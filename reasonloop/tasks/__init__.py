"""Problems and their verifiers. Nothing here imports torch; heavy libraries load when they are used."""

from reasonloop.tasks.base import SPLITS, Task, demonstrations, gold_response, quick_judgement
from reasonloop.tasks.checks import check_task, require_gold, task_problems
from reasonloop.tasks.files import row_name
from reasonloop.tasks.registry import TASKS, load_task, parse_task_spec, task_target
from reasonloop.tasks.report import report_lines, tell

__all__ = [
    "SPLITS",
    "TASKS",
    "Task",
    "check_task",
    "demonstrations",
    "gold_response",
    "load_task",
    "parse_task_spec",
    "quick_judgement",
    "report_lines",
    "require_gold",
    "row_name",
    "task_problems",
    "task_target",
    "tell",
]
