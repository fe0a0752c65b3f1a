"""Objectives: sft, dpo, kto, orpo and reward learn from rows, grpo and rloo from own answers.

The first five are few lines over transformers' Trainer: answers are scored at their positions
only, and the reference of dpo and kto is computed once, which holds for every method of
adapting. grpo and rloo are TRL's trainers.
"""
