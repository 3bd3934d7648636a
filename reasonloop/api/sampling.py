"""`reasonloop.sample` and `reasonloop.experts`. Torch is loaded by what they call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Unpack

from reasonloop.api.options import ExpertKeywords, ExpertOptions, SampleKeywords, SampleOptions, sampling_of
from reasonloop.api.task import Task, expect_task, problems_of
from reasonloop.config import EngineOptions, validated
from reasonloop.errors import InputError
from reasonloop.records import Group, Place, Problem, Rollout
from reasonloop.store.experts import Experts, experts_among

if TYPE_CHECKING:
    from reasonloop.policy.policy import Policy
    from reasonloop.rewards.outcome import OwnReward


def sample(
    policy: Policy,
    task: Task | None,
    problems: Iterable[Problem] | None = None,
    *,
    reward: str | OwnReward = "outcome",
    **options: Unpack[SampleKeywords],
) -> list[Group]:
    """A group of judged responses for each problem (unset: all training problems), in their order.

        groups = reasonloop.sample(policy, task, task.batch(step, 32), group_size=8, max_tokens=34)

    `options` are a recipe's: `temperature` (1), `top_p` (1), `top_k` (0), `min_p` (0), `max_tokens` (80) and `stop` (()) of
    `[sampling]`; `group_size` (8) and `overlong_buffer` (0) of `[rl]`; `seed` (0); `slots` (256), the responses in flight at
    once. `step` names the draws, with `iteration` (0): a response is a function of the weights, the seed, iteration, step,
    problem and sample, whatever else is sampled beside it. Unset it is the number of updates that the policy has had.

    `reward`: what a response is worth: "outcome" (1 for right and 0 otherwise, or the verifier's score), or a function of
    (problem, judged rollout), itself or as `module:name`. Without a task (None) there are no verdicts, and no
    rewards but those of such a function.

    Every rollout has its tokens (int32), their log-probs (float32, nats, of the distribution that was sampled), verdict
    and reward. Raises InputError for an unknown option, a problem that is given twice, or a prompt that is too long.
    """
    from reasonloop.engine.registry import engine_of
    from reasonloop.engine.sample import Sampler
    from reasonloop.policy.policy import Weights, expect_policy
    from reasonloop.stages.sampling import outcome_of

    expect_policy("sample", policy)
    if task is not None:
        expect_task("sample", task)
    chosen = validated(SampleOptions, dict(options), "sample")
    sampling = sampling_of(chosen)
    place = Place(iteration=chosen.iteration, step=policy.version if chosen.step is None else chosen.step)
    prompts = [Group(problem, policy.codec.encode_prompt(problem)) for problem in problems_of(task, problems)]
    rewarded = outcome_of(reward, chosen.overlong_buffer, sampling.max_tokens)
    # an engine of its own, so that nothing it keeps can be of weights that have changed since
    with closing(engine_of(EngineOptions.model_validate({"slots": chosen.slots}))) as engine:
        engine.load(Weights(policy.version, policy))
        sampler = Sampler(engine, policy.codec, sampling, chosen.seed, task.verifier if task is not None else None)
        groups = sampler.sample(prompts, chosen.group_size, place)
    return [rewarded(group) for group in groups] if task is not None or reward != "outcome" else groups


def experts(rollouts: Iterable[Group | Rollout], **options: Unpack[ExpertKeywords]) -> Experts:
    """RLoop's expert set of one exploration's groups (or rollouts): the right responses to hard problems, without exact
    duplicates, at most `cap` a problem, drawn evenly over the steps. The query is the one that runs ask their store.

        found = reasonloop.experts(seen, hard_threshold=0.9, cap=16)
        learner.finetune(found, epochs=4)

    `options` are those of `[rloop]`: `hard_threshold` (0.5): a problem is hard when 0 < its success rate <= this, over all
    the rollouts given; `cap` (8); `seed` (0). Give it every rollout of the exploration, the wrong ones too: they are what
    the success rates are made of.

    Raises InputError for an unknown option, if there are no rollouts, or if two of them have one address (sample each step
    with a `step` of its own).
    """
    chosen = validated(ExpertOptions, dict(options), "experts")
    return experts_among(rollouts_of(rollouts), hard_threshold=chosen.hard_threshold, cap=chosen.cap, seed=chosen.seed)


def rollouts_of(given: Iterable[Group | Rollout]) -> Sequence[Rollout]:
    """The rollouts of groups, or rollouts as they are."""
    if not isinstance(given, Iterable):
        raise InputError(f"got a {type(given).__name__}; expected groups, as `sample` gives them, or their rollouts")
    found: list[Rollout] = []
    problems: dict[str, Problem] = {}
    for one in given:
        if isinstance(one, Group):
            if problems.setdefault(one.problem.id, one.problem) != one.problem:
                raise InputError(f"two problems are called {one.problem.id!r}; expected groups of one task")
            found += one.rollouts
        elif isinstance(one, Rollout):
            found.append(one)
        else:
            raise InputError(f"got a {type(one).__name__}; expected groups, as `sample` gives them, or their rollouts")
    return found
