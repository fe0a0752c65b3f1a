"""Keys of transformers' TrainingArguments, which several projects take over."""

from __future__ import annotations

from adapterhub.train.foreign.project import (
    HARDWARE,
    LOADING,
    REGISTRY,
    STARTING,
    TRACKING,
    checkpointing,
    read_eight_bit,
    read_four_bit,
    read_targets,
)

STEPS = {
    "learning_rate": "training.lr",
    "gradient_accumulation_steps": "training.accumulation",
    "max_steps": "training.max_steps",
    "warmup_ratio": "training.warmup",
    "weight_decay": "training.weight_decay",
    "max_grad_norm": "training.clip",
    "seed": "training.seed",
    "save_steps": "training.save_every",
    "eval_steps": "training.eval_every",
    "lora_alpha": "method.alpha",
    "lora_dropout": "method.dropout",
}
"""Those that projects with names of their own have in common with it."""

MOVED = {
    **STEPS,
    "per_device_train_batch_size": "training.batch_size",
    "num_train_epochs": "training.epochs",
    "lr_scheduler_type": "training.schedule",
}

READ = {
    "lora_target_modules": read_targets,
    "load_in_4bit": read_four_bit,
    "load_in_8bit": read_eight_bit,
    "gradient_checkpointing": checkpointing,
}
"""Keys of TRL's ModelConfig beside them."""

UNUSED = {
    "bf16": HARDWARE, "fp16": HARDWARE, "tf32": HARDWARE, "torch_dtype": HARDWARE,
    "dtype": HARDWARE, "flash_attn": HARDWARE, "attn_implementation": HARDWARE,
    "packing": HARDWARE, "use_cache": HARDWARE, "gradient_checkpointing_kwargs": HARDWARE,
    "optim": "AdamW is used",
    "trust_remote_code": "code of a model never runs",
    "output_dir": REGISTRY, "overwrite_output_dir": REGISTRY, "save_strategy": REGISTRY,
    "save_total_limit": REGISTRY, "save_only_model": REGISTRY, "push_to_hub": REGISTRY,
    "hub_model_id": REGISTRY, "hub_strategy": REGISTRY, "model_revision": "bases have digests",
    "logging_*": TRACKING, "log_level": TRACKING, "report_to": TRACKING, "run_name": TRACKING,
    "plot_loss": TRACKING,
    "do_train": "it is what adz train does", "do_eval": "held-out rows are always scored",
    "eval_strategy": "set training.eval_every", "evaluation_strategy": "set training.eval_every",
    "per_device_eval_batch_size": "as in training",
    "overwrite_cache": LOADING, "preprocessing_num_workers": LOADING,
    "dataloader_num_workers": LOADING, "dataset_num_proc": LOADING,
    "remove_unused_columns": LOADING,
    "deepspeed": STARTING, "ddp_timeout": STARTING, "local_rank": STARTING,
    "resume_from_checkpoint": "use --resume",
}  # fmt: skip
