"""What `grpo` and `rloo` have in common: TRL's trainers over our rows and rewards."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from adapterhub.data import as_messages, render, stop_token
from adapterhub.errors import AdzError, usage_error
from adapterhub.train.run import Run
from adapterhub.train.trainer import RunTrainer, trainer_settings
from adapterhub_objectives.rewards import make_reward


class OnlineTrainer(RunTrainer):
    """Stands before a trainer of TRL that generates; `follow` has to be called after it."""

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        """TRL's: each question several times, one after the other."""
        return super(RunTrainer, self)._get_train_sampler(dataset)  # type: ignore[misc]

    def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
        """One batch; its tokens are counted by TRL, after they were generated."""
        trainer: Any = super(RunTrainer, self)
        loss = trainer.training_step(model, inputs, *rest)
        self.seen_tokens = int(self.state.num_input_tokens_seen)  # type: ignore[attr-defined]
        return loss


def online_settings(run: Run) -> dict[str, Any]:
    """The settings that both configurations of TRL take."""
    options: Any = run.plan.objective_options
    training = run.recipe.training
    batch = training.batch_size * training.accumulation
    if batch % options.generations:
        raise usage_error(
            f"training.batch_size {batch} is no multiple of objective.generations "
            f"{options.generations}",
            "every question gets all its answers in one step",
        )
    return {
        **trainer_settings(run),
        "eval_strategy": "no",
        "num_generations": options.generations,
        "max_completion_length": options.max_answer,
        "temperature": options.temperature,
        "beta": options.beta,
        "reward_weights": [source.weight for source in options.rewards],
    }


def online_arguments(run: Run) -> dict[str, Any]:
    """The model, the questions and the rewards, as both trainers of TRL take them."""
    options: Any = run.plan.objective_options
    examples = list(run.plan.train)
    if not all(example.prompt or example.messages for example in examples):
        raise usage_error("some rows have no prompt, so there is nothing to answer")
    chat = run.plan.prompt_format == "chat"
    if options.beta and not hasattr(run.model, "peft_config"):
        raise AdzError(
            f"{run.plan.method.name} cannot be switched off to compute objective.beta",
            "set objective.beta=0",
        )
    prompts = [
        [dict(turn) for turn in as_messages(example)[:-1]]
        if chat
        else render(example, run.tokenizer, "plain")[0]
        for example in examples
    ]
    return {
        "model": run.model,
        "train_dataset": Dataset.from_dict({"prompt": prompts, "index": range(len(prompts))}),
        "reward_funcs": [make_reward(source, examples) for source in options.rewards],
        "processing_class": run.tokenizer,
    }


def settle(trainer: Any, run: Run) -> None:
    """After TRL's constructor: one adapter in the model, and answers end where ours do."""
    # TRL keeps a copy of an adapter that it is given as its reference; the base is ours.
    if "ref" in getattr(run.model, "peft_config", {}):
        run.model.delete_adapter("ref")
    stop = stop_token(run.tokenizer, run.plan.prompt_format)
    trainer.eos_token_ids = list(dict.fromkeys([stop, *trainer.eos_token_ids]))
    trainer.generation_config.eos_token_id = trainer.eos_token_ids
    trainer.follow(run)
