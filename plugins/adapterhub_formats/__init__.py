"""Layouts of data rows, one file each; chats.py and columns.py are what they have in common."""
