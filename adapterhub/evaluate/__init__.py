"""Scores of a base and its adapters on the same rows, in process or over the OpenAI API.

tasks.py chooses the rows and the shots, questions.py what is asked of whom, local.py and
remote.py answer, interval.py says how sure a score is, run.py ties them together.
"""
