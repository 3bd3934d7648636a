"""TRL's SFTTrainer, a step at a time on one batch (see trl_grpo).

Options: {"model": folder, "prompts": [[token]], "responses": [[token]], "batch" (examples a forward pass),
"learning_rate", "steps", "threads"}. Requests: {"lengths": [int]} -> {"seconds", ...}.
Examples of like length are batched together (the trainer's own option), since they all belong to the one step.
"""

from __future__ import annotations

import tempfile

import lines
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer
from trl_grpo import Steps


def main() -> None:
    options = lines.options()
    torch.set_num_threads(options["threads"])
    model = AutoModelForCausalLM.from_pretrained(options["model"], dtype=torch.float32, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(options["model"], trust_remote_code=False)
    pairs = list(zip(options["prompts"], options["responses"], strict=True))
    examples = {
        "input_ids": [prompt + response for prompt, response in pairs],
        "labels": [[-100] * len(prompt) + response for prompt, response in pairs],
    }
    arguments = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=options["batch"],
        gradient_accumulation_steps=len(pairs) // options["batch"],
        train_sampling_strategy="group_by_length",
        dataset_kwargs={"skip_prepare_dataset": True},
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
    )
    steps = Steps()
    trainer = SFTTrainer(
        model,
        arguments,
        train_dataset=Dataset.from_dict(examples),
        processing_class=tokenizer,
        callbacks=[steps],
    )
    steps.listen(trainer)
    trainer.train()


if __name__ == "__main__":
    main()
