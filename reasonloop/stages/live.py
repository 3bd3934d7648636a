"""The stages of a method, done: see `run.stages.Stages`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from reasonloop.config import Training
from reasonloop.errors import RunError
from reasonloop.records import Place
from reasonloop.runs.dry import RL_ROLLOUT
from reasonloop.runs.session import Session
from reasonloop.runs.stages import Arm, Budget, Examples, Explored, Source
from reasonloop.stages import outside
from reasonloop.stages.adapted import check_delivered, deliver_adapter
from reasonloop.stages.average import average
from reasonloop.stages.evaluate import about, evaluate
from reasonloop.stages.experts import demonstrations, experts
from reasonloop.stages.exploration import ExplorationState
from reasonloop.stages.explorers import explorer_of
from reasonloop.stages.finetune import finetune


class LiveStages:
    def __init__(self, run: Session) -> None:
        self.run, self.recipe = run, run.recipe
        self._counted: dict[str, int] = {}
        """By exploration: rollouts that its progress knows of"""

    def evaluate(
        self,
        policy: Source,
        name: str,
        place: Place,
        arm: Arm,
        *,
        rollouts: int = 0,
        same_as: str = "",
        split: str = "",
    ) -> Mapping[str, float]:
        told = about(self.run, name, place, arm, rollouts)
        return evaluate(self.run, policy, told, split or self.recipe.eval.split, same_as)

    def explore(self, start: Source, place: Place, arm: Arm, budget: Budget) -> Explored:
        state = ExplorationState.of(self.run.folder.checkpoint(place)) or ExplorationState()
        explorer = explorer_of(self.run, arm)
        known = min(state.rollouts, budget.until) - self._counted.get(place.name, 0)
        self.run.progress.skip(max(0, known) * (RL_ROLLOUT if budget.learn else 1))
        self._counted[place.name] = budget.until
        return explorer.explore(start, place, arm, budget)

    def share(self, place: Place, other: Place) -> None:
        folder = self.run.folder
        state = ExplorationState.of(folder.checkpoint(place))
        assert state is not None  # it is finished
        folder.checkpoint(place).share(folder.checkpoint(other), state.gone_on().to_json())
        best, of_other = (folder.checkpoint(Place(p.branch, "best", p.iteration)) for p in (place, other))
        if best.folder.exists():
            best.share(of_other, best.state() or {})
        self._counted[other.name] = state.rollouts

    def experts(self, place: Place, start: Source, arm: Arm) -> Examples:
        return experts(self.run, place, start, arm)

    def demonstrations(self) -> Examples:
        return demonstrations(self.run)

    def finetune(
        self,
        start: Source,
        place: Place,
        arm: Arm,
        examples: Callable[[], Examples],
        options: Training,
        epochs: float,
    ) -> Source:
        if place.stage == "rft" and self.recipe.finetuner.command:
            return outside.finetune(self.run, start, place, arm, examples, epochs)
        return finetune(self.run, start, place, arm, examples, options, epochs)

    def average(self, start: Source, trained: Source, weight: float, place: Place) -> Source:
        return average(self.run, start, trained, weight, place)

    def drop(self, places: Sequence[Place], keep: Sequence[Source]) -> None:
        for place in places:
            checkpoint = self.run.folder.checkpoint(place)
            if checkpoint.folder not in keep and not self.recipe.keep_checkpoints:
                checkpoint.drop_policy()

    def deliver(self, policy: Source) -> None:
        folder = self.run.folder
        model, checkpoints = folder.path / "model", folder.checkpoints()
        deliver_adapter(self.run, policy)
        if not (model / "config.json").is_file():
            own = next((one for one in checkpoints if one.folder == policy), None)
            if own is not None and own.dropped:
                raise RunError(
                    f"{model} has been deleted; of a finished run nothing else is left that it could be made of"
                )
            if own is not None and own.whole:
                own.deliver(model)
            else:
                partial = model.with_name(f"{model.name}.partial")
                self.run.policy(policy).save(partial)
                folder.ledger.put_folder(partial, model)
        check_delivered(self.run)
        for checkpoint in checkpoints:  # before the run is done: what a killed process leaves of them goes then
            checkpoint.drop_trainer_state() if self.recipe.keep_checkpoints else checkpoint.drop_policy()
        folder.set_state("done")
