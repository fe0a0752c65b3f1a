"""What a user relies on, one class a kind.

`class TestMine(MergeRuleConformance): name = "mine"`
"""
