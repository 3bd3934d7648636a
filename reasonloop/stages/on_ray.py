"""Explorations side by side on a Ray cluster, as this machine sees them: begun, listened to, begun again where a machine is
gone, and left behind where they are late.

A worker is an actor that is asked for one part after another. The policy goes out once an iteration; what comes back is
segments of the store and metrics lines. Nothing is shared but that.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reasonloop.errors import RunError, first_line
from reasonloop.policy.loading import resolve_device
from reasonloop.records import Place
from reasonloop.runs.session import Session
from reasonloop.runs.stages import Arm, Budget, Explored, Source
from reasonloop.stages.branches import Branch, Branches
from reasonloop.stages.exploration import ExplorationState
from reasonloop.stages.packed import inputs_of, packed_policy
from reasonloop.stages.remote import BranchWorker, Part, job_of

LOOK = 1.0
"""Seconds after which the driver looks up from what comes in"""
ASKED = 2
"""Parts that a worker is asked for ahead, so that it doesn't wait for the driver between steps"""
PATIENCE = 20.0
"""Seconds without any machine after which that is said; and which a worker has to tidy up"""


class BranchesOnRay:
    """See `Explorer`."""

    def __init__(self, run: Session) -> None:
        self.run = run

    def explore(self, start: Source, place: Place, arm: Arm, budget: Budget) -> Explored:
        branches = Branches(self.run, place, arm, budget)
        if not branches.over:
            _Round(self.run, branches, start).work()
        return branches.explored()


@dataclass(eq=False)
class _Worker:
    """At work on a branch."""

    actor: Any
    asked: deque[Any]
    """The parts that it was asked for, as references"""
    machine: str = ""
    """Empty before it has begun"""


@dataclass(eq=False)
class _Received:
    """A branch, and what has come in of it."""

    branch: Branch
    worker: _Worker | None = None
    tries: int = 0
    began: float = 0.0
    """When it first began; 0: it hasn't"""
    states: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    """By step, how far the branch was when it was done"""
    lines: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    """By step"""
    logged: int = 0
    """Steps whose lines stand in metrics.jsonl"""

    @property
    def state(self) -> Mapping[str, Any]:
        return self.states[max(self.states)] if self.states else ExplorationState().to_json()

    @property
    def spent(self) -> int:
        return int(self.state["rollouts"])

    @property
    def all_lines(self) -> list[Any]:
        return [line for step in sorted(self.lines) for line in self.lines[step]]

    def forget(self, step: int) -> None:
        """What came in from this step on doesn't count."""
        self.states = {k: state for k, state in self.states.items() if k < step}
        self.lines = {k: lines for k, lines in self.lines.items() if k < step}
        if self.logged > step:
            self.branch.unlog(from_step=step)
            self.logged = step


class _Round:
    """An iteration's branches on the cluster."""

    def __init__(self, run: Session, branches: Branches, start: Source) -> None:
        self.run, self.branches, self.start = run, branches, start
        self.ray, self.options = run.cluster.ray, run.recipe.scale
        self.kind = self.ray.remote(BranchWorker)
        self.received = [_Received(branch) for branch in branches.each]
        self.leaving: list[_Worker] = []
        self.began, self.bytes_in, self.bytes_out, self.told = time.monotonic(), 0, 0, False
        on_gpu = resolve_device(run.recipe.model.device).startswith("cuda")
        self.needed = {"CPU": float(run.threads * run.world), **({"GPU": float(run.world)} if on_gpu else {})}

    def work(self) -> None:
        run = self.run
        for one in self.received:
            if one.branch.state.done:
                run.progress.skip(one.branch.state.rollouts * one.branch.units)
            else:
                one.branch.unlog()  # what was logged before a stop is told again
        self._log()
        try:
            self._begin_all()
            while self._at_work() and not run.stopping:
                asked = {one.worker.asked[0]: one for one in self._at_work() if one.worker is not None}
                leaving = {worker.asked[0]: worker for worker in self.leaving}
                for reference in self.ray.wait([*asked, *leaving], timeout=LOOK)[0]:
                    if reference in asked:
                        self._receive(asked[reference])
                    else:  # it has tidied up; others may need its place
                        self._kill(leaving[reference])
                        self.leaving.remove(leaving[reference])
                self._leave_late()
                self._tell_waiting()
        finally:
            self._dismiss()
        run.stop_point()
        self._finish()

    def _at_work(self) -> list[_Received]:
        return [one for one in self.received if one.worker is not None]

    def _begin_all(self) -> None:
        wanted = [one for one in self.received if not one.branch.state.done]
        if not wanted:
            return
        policy, self.inputs = packed_policy(self.run, self.start), inputs_of(self.run.recipe)
        self.run.let_go()  # a branch may be made on this machine's GPU
        self.bytes_out = sum(content.nbytes for content in policy.values())
        errors = self.ray.exceptions
        try:  # the driver owns both: they are there for as long as it is, whatever machine goes
            self.sent = self.ray.put(policy), self.ray.put(self.inputs.files)
        except (errors.ObjectStoreFullError, errors.OutOfDiskError) as error:
            raise RunError(
                f"Ray's object store has no room for the policy ({self.bytes_out / 1e9:.1f} GB): start Ray on this machine "
                "with a larger --object-store-memory, then the same command goes on"
            ) from error
        for one in wanted:
            self._begin(one)

    def _begin(self, one: _Received) -> None:
        kind = self.kind.options(
            max_restarts=0,
            scheduling_strategy="SPREAD",
            num_cpus=self.needed["CPU"],
            num_gpus=self.needed.get("GPU", 0),
        )
        branch = one.branch
        job = job_of(self.run, branch.place, self.branches.arm, branch.budget, self.inputs.options)
        actor = kind.remote(job, *self.sent)
        one.tries += 1
        one.worker = _Worker(actor, deque(actor.part.remote() for _ in range(ASKED)))

    def _receive(self, one: _Received) -> None:
        worker, errors = one.worker, self.ray.exceptions
        assert worker is not None
        try:
            part: Part = self.ray.get(worker.asked.popleft())
        except errors.RayTaskError as error:
            raise self._failure(one, first_line(error)) from error
        except errors.RayError as error:
            self._begin_again(one, error)
            return
        worker.asked.append(worker.actor.part.remote())
        worker.machine = part.machine or worker.machine
        if part.failed:
            if part.where:
                self.run.progress.say(part.where.rstrip())
            raise self._failure(one, part.failed)
        if part.step < 0:
            one.began = one.began or time.monotonic()
            self._compare(one, part)
            return
        self._take(one, part)
        if part.done:
            one.forget(part.step + 1)  # where it isn't repeated to the bit it may have fewer steps
            self._done(one)
        self._log()

    def _take(self, one: _Received, part: Part) -> None:
        """A step's segment and lines. What came in already stays, if it is the same: a branch that was begun again makes the
        same rollouts."""
        run, place = self.run, replace(one.branch.place, step=part.step)
        for name, data in part.segments.items():
            path = run.store.folder / name
            if path.is_file() and path.read_bytes() != data:
                run.progress.say(
                    f"{self._name(one)}: step {part.step + 1} came out otherwise than when it was made before: the machines "
                    "aren't alike; its rollouts from there on are replaced"
                )
                run.store.take_back(place)
                one.forget(part.step)
            if not path.is_file():
                run.store.take(name, data)
            self.bytes_in += len(data)
        self.bytes_in += sum(len(json.dumps(line)) for line in part.lines)
        for text in part.said:
            run.progress.say(f"{self._name(one)}: {text}")
        if part.step not in one.states:
            before = one.spent
            one.states[part.step], one.lines[part.step] = part.state, part.lines
            self._show(one, one.spent - before)

    def _show(self, one: _Received, spent: int) -> None:
        run, recipe = self.run, self.run.recipe
        run.progress.advance(spent * one.branch.units)
        line: Mapping[str, Any] = next((own for own in one.lines[max(one.lines)] if own["stage"] == "explore"), {})
        done = sum(len(other.states) or other.branch.state.step for other in self.received)
        planned = sum(-(-other.branch.budget.until // recipe.rl.rollouts_per_step) for other in self.received)
        run.progress.step(
            f"{self.branches.arm.label} {len(self.received)} branches, iteration",
            done,
            max(done, planned),
            iteration=self.branches.place.iteration,
            reward=line.get("reward"),
            tokens_per_second=line.get("tokens_per_second"),
        )
        run.folder.set_state(self.branches.place.name, self.branches.place.iteration, done)

    def _done(self, one: _Received, left_behind: bool = False) -> None:
        assert one.worker is not None
        if left_behind:
            self._kill(one.worker)
        else:
            self.leaving.append(one.worker)
        one.worker = None
        self.run.store.take_back(replace(one.branch.place, step=len(one.states)))
        one.branch.finish(one.state, one.all_lines, left_behind)

    def _log(self) -> None:
        """Metrics lines, in the branches' order whatever came first."""
        for one in self.received:
            if one.branch.state.done:
                one.branch.log_lines()
                continue
            for step in range(one.logged, len(one.states)):
                for line in one.lines[step]:
                    self.run.folder.log(**line)
            one.logged = len(one.states)
            return

    def _begin_again(self, one: _Received, error: Exception) -> None:
        """Its machine or its process is gone."""
        worker = one.worker
        assert worker is not None
        if getattr(error, "actor_init_failed", False):
            raise self._failure(one, f"{_cause(error)}: is reasonloop installed there, in this version?")
        self._kill(worker)
        one.worker, where, cause = None, f" ({worker.machine})" if worker.machine else "", _cause(error)
        if one.tries > self.options.retries:
            raise RunError(
                f"{self._name(one)}{where}: its worker has died {one.tries} times, at last: {cause}; nothing that came in "
                "is lost: see what that machine's log says (memory, most often), then the same command goes on, also with "
                "another scale.retries"
            ) from error
        self.run.progress.say(
            f"{self._name(one)}{where}: its worker is gone ({cause}); begun again, {one.tries} of {self.options.retries}"
        )
        self._begin(one)

    def _leave_late(self) -> None:
        for one in self._at_work():
            if self.options.deadline and one.began and time.monotonic() - one.began > self.options.deadline:
                spent, until = one.spent, one.branch.budget.until
                self.run.progress.say(
                    f"{self._name(one)}: later than scale.deadline = {self.options.deadline:g} s, left behind: "
                    f"{spent:,} of {until:,} rollouts came in, and count"
                )
                self.run.progress.skip((until - spent) * one.branch.units)
                self._done(one, left_behind=True)
                self._log()

    def _tell_waiting(self) -> None:
        waiting = self._at_work() and not any(one.began for one in self.received)
        if waiting and not self.told and time.monotonic() - self.began > PATIENCE:
            self.told = True
            needed = " and ".join(f"{count:g} {name}" for name, count in self.needed.items())
            fits = "is busy with something else" if self.run.cluster.has(self.needed) else "isn't in the cluster (yet)"
            self.run.progress.say(
                f"branches wait for a machine with {needed} (threads, model.device); one with as much {fits}"
            )

    def _compare(self, one: _Received, part: Part) -> None:
        """Machines that aren't alike are told of; another version of ours is refused."""
        folder, machine = self.run.folder, part.machine.partition(",")[0]
        differing = folder.changed(part.described)
        ours = [text for text in differing if text.startswith("reasonloop:")]
        if ours:
            raise self._failure(one, f"{ours[0]}; expected the same version on every machine")
        told = f"{machine}: it may make other rollouts than the machine that began this run ({'; '.join(differing)})"
        if differing and told not in self.run.said:
            self.run.said.add(told)
            self.run.progress.say(told)

    def _name(self, one: _Received) -> str:
        return f"branch {one.branch.place.branch}, iteration {one.branch.place.iteration + 1}"

    def _failure(self, one: _Received, why: str) -> RunError:
        where = f" ({one.worker.machine})" if one.worker is not None and one.worker.machine else ""
        return RunError(f"{self._name(one)}{where}: {why}")

    def _finish(self) -> None:
        branches = self.branches
        if not sum(branch.state.rollouts for branch in branches.each):
            for branch in branches.each:
                branch.forget()
            raise RunError(
                f"no branch had anything to hand over within scale.deadline = {self.options.deadline:g} s; the same command "
                "goes on with a longer one"
            )
        branches.finish(
            tries=sum(one.tries for one in self.received),
            sent_bytes=self.bytes_out,
            received_bytes=self.bytes_in,
            seconds=round(time.monotonic() - self.began, 3),
        )

    def _dismiss(self) -> None:
        """Workers that are done tidy up and go; the others just go."""
        last = [worker.asked[0] for worker in self.leaving]
        if last:
            self.ray.wait(last, num_returns=len(last), timeout=PATIENCE)
        self._kill(*self.leaving, *(one.worker for one in self._at_work() if one.worker is not None))
        for one in self.received:
            one.worker = None

    def _kill(self, *workers: _Worker) -> None:
        for worker in workers:
            self.ray.kill(worker.actor)


def _cause(error: Exception) -> str:
    """What Ray says of a death, on one line: without what it says of the actor itself."""
    lines = (line for line in str(error).splitlines() if line.strip() and not line.startswith("\t"))
    return " ".join(" ".join(lines).split())[:300]
