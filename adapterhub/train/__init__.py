"""Training: a recipe in, a version in the registry out.

recipe.py is what a user asks for, plan.py what it means on this base, run.py the pipeline;
rows.py and loss.py are what the model sees and what it is scored on, gates.py refuses bad
runs, trainer.py adapts transformers' Trainer, result.py commits.
"""
