"""Problems and their verifiers. Nothing here imports torch; heavy libraries load when they are used."""

from reasonloop.tasks.base import SPLITS, Task, demonstrations, gold_response, quick_judgement
from reasonloop.tasks.gold import check_task, require_gold, row_name
from reasonloop.tasks.problems import task_problems
from reasonloop.tasks.registry import TASKS, load_task, parse_task_spec, task_class, task_target
from reasonloop.tasks.show import check, list_tasks, show_task

__all__ = [
    "SPLITS",
    "TASKS",
    "Task",
    "check",
    "check_task",
    "demonstrations",
    "gold_response",
    "list_tasks",
    "load_task",
    "parse_task_spec",
    "quick_judgement",
    "require_gold",
    "row_name",
    "show_task",
    "task_class",
    "task_problems",
    "task_target",
]
