"""Layouts of data rows: messages, alpaca, prompt_completion, text."""
