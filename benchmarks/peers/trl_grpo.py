"""TRL's GRPOTrainer, a step at a time: `train()` runs as it is, and a callback waits for a request before each step.

Options: {"model": folder, "prompts": [text], "group", "problems" (a step), "batch" (responses a forward pass),
"longest", "learning_rate", "steps", "engine": "generate" | "continuous" | "given", "threads"}, and where they are not
TRL's defaults "iterations" (updates on the same rollouts) and "scale" (of the advantages); "device": "cuda" for a GPU, in
bfloat16 by autocast.
Requests: {"lengths": [int], "rewards": [float]}, one a response in the order of the prompts, and for "given" also
{"prompts": [[token]], "responses": [[token]]} -> {"seconds", "sampling_seconds", "prompt_tokens", "loss", "grad_norm"};
"sampling_seconds" is TRL's generation, or for "given" everything up to the advantages; "grad_norm" is before clipping.
"""

from __future__ import annotations

import sys
import tempfile
import time
from typing import Any

import lines
import torch
from datasets import Dataset
from forced import EndAt, forced_lengths
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Steps(TrainerCallback):
    """Begins a step when it is asked for, and says what it took."""

    def __init__(self) -> None:
        self.incoming = lines.requests()
        self.request: dict[str, Any] = {}
        self.began = self.sampling_seconds = 0.0
        self.prompt_tokens = 0
        self.losses: list[torch.Tensor] = []  # of the step's forward passes
        self.grad_norm = 0.0

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        lines.ready("torch", "transformers", "trl", "accelerate")

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        request = next(self.incoming, None)
        if request is None:
            sys.exit(0)
        self.request, self.sampling_seconds, self.losses = request, 0.0, []
        self.began = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        seconds = time.perf_counter() - self.began
        lines.answer(
            {
                "seconds": seconds,
                "sampling_seconds": self.sampling_seconds,
                "prompt_tokens": self.prompt_tokens,
                "loss": sum(map(float, self.losses)),
                "grad_norm": self.grad_norm,
            }
        )

    def listen(self, trainer: Any) -> None:
        """Keeps what the trainer finds on its way: the loss of each forward pass, and the gradient's norm."""
        compute_loss, clip = trainer.compute_loss, trainer.accelerator.clip_grad_norm_

        def heard_loss(*args: Any, **kwargs: Any) -> Any:
            result = compute_loss(*args, **kwargs)
            self.losses.append((result[0] if isinstance(result, tuple) else result).detach())
            return result

        def heard_norm(*args: Any, **kwargs: Any) -> Any:
            norm = clip(*args, **kwargs)
            self.grad_norm = float(norm)
            return norm

        trainer.compute_loss, trainer.accelerator.clip_grad_norm_ = heard_loss, heard_norm


def main() -> None:
    options = lines.options()
    torch.set_num_threads(options["threads"])
    steps = Steps()
    model = AutoModelForCausalLM.from_pretrained(options["model"], dtype=torch.float32, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(options["model"], padding_side="left", trust_remote_code=False)
    responses = options["problems"] * options["group"]

    def reward(completions: list[Any], completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
        assert [len(ids) for ids in completion_ids] == steps.request["lengths"], "lengths were not forced"
        return steps.request["rewards"]

    def given(prompts: list[str], trainer: Any) -> dict[str, Any]:
        return {
            "prompt_ids": steps.request["prompts"],
            "completion_ids": steps.request["responses"],
            "logprobs": None,
        }

    arguments = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=options.get("device", "cpu") == "cpu",
        bf16=options.get("device", "cpu") != "cpu",
        gradient_checkpointing=False,
        per_device_train_batch_size=options["batch"],
        gradient_accumulation_steps=responses // options["batch"],
        generation_batch_size=responses,
        num_generations=options["group"],
        max_completion_length=options["longest"],
        num_iterations=options.get("iterations", 1),
        scale_rewards=options.get("scale", "group"),
        beta=0.0,
        loss_type="dapo",
        epsilon_high=0.28,
        temperature=1.0,
        shuffle_dataset=False,
        max_steps=options["steps"],
        learning_rate=options["learning_rate"],
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        adam_beta2=0.95,
        weight_decay=0.0,
        max_grad_norm=1.0,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_transformers_continuous_batching=options["engine"] == "continuous",
        # sized for the workload: left to itself it takes half of the machine's memory, and fills it
        transformers_continuous_batching_config={
            "page_size": 32,
            "num_blocks": options["pages"],
            "max_batch_tokens": 4096,
        }
        if options["engine"] == "continuous"
        else None,
    )
    trainer = GRPOTrainer(
        model,
        reward,
        arguments,
        train_dataset=Dataset.from_dict({"prompt": options["prompts"]}),
        processing_class=tokenizer,
        callbacks=[steps],
        rollout_func=given if options["engine"] == "given" else None,
    )
    steps.listen(trainer)
    _force_lengths(model, trainer, steps)
    _time_sampling(trainer, steps, given_rollouts=options["engine"] == "given")
    trainer.train()


def _force_lengths(model: Any, trainer: Any, steps: Steps) -> None:
    """Both of TRL's own ways to sample, called with the lengths of the request at hand."""
    generate, generate_batch = model.generate, model.generate_batch

    def forced_generate(*args: Any, **kwargs: Any) -> Any:
        width = kwargs["input_ids"].shape[1]
        processors = LogitsProcessorList([EndAt(width, steps.request["lengths"], trainer.eos_token_ids)])
        return generate(*args, logits_processor=processors, **kwargs)

    def forced_batch(*args: Any, **kwargs: Any) -> Any:
        with forced_lengths(steps.request["lengths"]):
            return generate_batch(*args, **kwargs)

    model.generate, model.generate_batch = forced_generate, forced_batch


def _time_sampling(trainer: Any, steps: Steps, given_rollouts: bool) -> None:
    name = "_generate_and_score_completions" if given_rollouts else "_generate_single_turn"
    inner = getattr(trainer, name)

    def outer(prompts: Any, *args: Any, **kwargs: Any) -> Any:
        if not given_rollouts:
            steps.prompt_tokens = sum(map(len, prompts))
        began = time.perf_counter()
        result = inner(prompts, *args, **kwargs)
        steps.sampling_seconds += time.perf_counter() - began
        return result

    setattr(trainer, name, outer)


if __name__ == "__main__":
    main()
