"""Plugins that are broken in one way each: what is changed in the example, and what finds it."""

from __future__ import annotations

from dataclasses import dataclass

from adapterhub import testing


@dataclass(frozen=True)
class Fault:
    """file: of the example, in which `good` becomes `bad`. caught_by: the test that fails, with
    `says` in its message."""

    file: str
    good: str
    bad: str
    caught_by: str
    says: str


KINDS = {
    "median": testing.MergeRuleConformance,
    "full-svd": testing.MergeSpaceConformance,
    "bitfit": testing.MethodConformance,
    "round8": testing.QuantizerConformance,
    "smooth": testing.ObjectiveConformance,
    "echo": testing.EngineConformance,
    "paper": testing.FormatConformance,
    "readable": testing.RemoteConformance,
    "word_f1": testing.MetricConformance,
    "census": testing.CommandConformance,
}
"""The example's components by name."""

PLUGIN = "plugin.py"

FAULTS: dict[str, list[Fault]] = {
    "median": [
        Fault("median.py", "return (ordered", "return torch.rand(()) * 1e-3 + (ordered",
              "test_it_is_deterministic", "two calls differ"),
        Fault("median.py", "deltas * weights[:, None, None] * count", "deltas",
              "test_weights_are_honoured", "the weights change nothing"),
        Fault("median.py", "count = len(deltas)", "weights /= 2; count = len(deltas)",
              "test_arguments_stay_as_they_are", "changes the weights"),
        Fault("median.py", "count = len(deltas)",
              "count = len(deltas); deltas = deltas / deltas.abs().max()",
              "test_blocks_of_rows_make_the_whole", "depends on the block"),
        Fault("median.py", "+ ordered[count // 2]) / 2", "+ ordered[count // 2]).double() / 2",
              "test_result_has_shape_and_dtype", "float64, not float32"),
        Fault("median.py", "count = len(deltas)",
              "count = len(deltas); deltas = deltas / deltas.norm(dim=(1, 2), keepdim=True)",
              "test_absent_modules_are_zero", "of nothing it makes something"),
        Fault("median.py", "weights[:, None, None]", "(weights / weights.sum())[:, None, None]",
              "test_weights_are_honoured", "are they normalised?"),
        Fault(PLUGIN, "from adapterhub import hookimpl, specs",
              "import torch\nfrom adapterhub import hookimpl, specs",
              "test_descriptor_imports_nothing_heavy", "name them in impl"),
        Fault(PLUGIN, 'install_hint="pip install \'adapterhub[merge]\'"', 'install_hint=""',
              "test_descriptor_is_valid", "no install_hint"),
    ],
    "full-svd": [
        Fault("full_svd.py", "error=s[rank:].norm().item()", "error=0.0",
              "test_error_is_what_compression_lost", "error 0.0"),
        Fault("full_svd.py", "    u, s, v =", "    rank += 1\n    u, s, v =",
              "test_result_has_shapes_and_rank", "was asked for"),
        Fault("full_svd.py", "    deltas = torch.stack([o.scale * o.b @ o.a for o in operands])",
              "    weights = weights[[i for i, o in enumerate(operands) if len(o.a)]]\n"
              "    deltas = torch.stack([o.scale * o.b @ o.a for o in operands if len(o.a)])",
              "test_rule_sees_every_adapter", "3 adapters are merged"),
        Fault("full_svd.py", 'f"{self._seed} {self.module}', 'f"{self.module}',
              "test_chance_is_keyed_by_the_seed", "another seed gives the same"),
        Fault("full_svd.py", "o.scale * o.b @ o.a", "o.b @ o.a", "test_sum_is_the_sum", "off by"),
        Fault("full_svd.py", "    deltas = torch.stack(",
              "    operands[0].a.mul_(2)\n    deltas = torch.stack(",
              "test_threads_change_nothing", "two calls differ"),
    ],
    "bitfit": [
        Fault("bitfit.py", "nn.Parameter(start.clone())",
              "nn.Parameter(start.clone()); layer.weight.requires_grad_(True)",
              "test_only_its_own_parameters_train", "a weight of the base itself is trainable"),
        Fault("bitfit.py", "if parameter.requires_grad",
              'if "mlp" in name and parameter.requires_grad',
              "test_loaded_it_is_the_same_bit_for_bit", "not all that is trained is stored"),
        Fault("bitfit.py", '"layers": len(trained)', '"layers": id(trained)',
              "test_it_saves_two_files_byte_for_byte", "differs between two saves"),
        Fault("bitfit.py", "(directory / _CONFIG).write_text(",
              '(directory / "notes.txt").write_text("")\n        (directory / _CONFIG).write_text(',
              "test_it_saves_two_files_byte_for_byte", "it wrote"),
        Fault("bitfit.py", "layer.bias = nn.Parameter(bias.to(layer.weight), requires_grad=False)",
              "layer.weight.data.add_(bias[:, None])", "test_many_share_one_base",
              "changed the base itself"),
        Fault("bitfit.py", "if target not in ends:", "if False:",
              "test_a_target_that_is_not_there_is_refused", "DID NOT RAISE"),
        Fault("bitfit_options.py", 'extra="forbid", ', "", "test_a_wrong_option_is_one_line",
              "takes any option"),
        Fault("bitfit_options.py", "from pydantic import", "import torch\nfrom pydantic import",
              "test_descriptor_imports_nothing_heavy", "keep options in a module apart"),
        Fault(PLUGIN, 'storage="own"', 'storage="peft"', "test_peft_opens_what_it_stores", ""),
        Fault(PLUGIN, 'quantizer_reason="a bias is added in the weight\'s own dtype",', "",
              "test_what_it_refuses_is_one_line", "does not say why"),
    ],
    "round8": [
        Fault("round8.py", ".requires_grad_(False)", ".requires_grad_(True)",
              "test_base_is_frozen", "trainable after prepare"),
        Fault("round8.py", "module.weight.data = round_rows(module.weight.data)", "pass",
              "test_base_is_quantised_and_still_itself", "nothing is quantised"),
        Fault("round8.py", "/ 127", "/ 0.6", "test_base_is_quantised_and_still_itself",
              "the cosine"),
        Fault("round8.py", "(weight / step).round()",
              "(weight / step + torch.rand(weight.shape) - 0.5).round()",
              "test_it_is_deterministic", "answer differently"),
        Fault("round8.py", "        return model.requires_grad_(False)",
              "        down = model.model.layers[0].mlp.down_proj\n"
              "        held = nn.Module()\n"
              "        held.register_buffer('codes', down.weight.data)\n"
              "        held.forward = lambda x: x @ held.codes.T\n"
              "        model.model.layers[0].mlp.down_proj = held\n"
              "        return model.requires_grad_(False)",
              "test_adz_trains_over_it", "over it {'modules': 13"),
    ],
    "smooth": [
        Fault("smooth.py", "args=TrainingArguments(**trainer_settings(run))",
              'args=TrainingArguments(**{**trainer_settings(run), "max_steps": 1})',
              "test_it_trains", "1 steps, not 3"),
        Fault("smooth.py", "args=TrainingArguments(**trainer_settings(run))",
              'args=TrainingArguments(**{**trainer_settings(run), "learning_rate": 1e-3})',
              "test_the_learning_rate_is_obeyed", "changes nothing"),
        Fault(PLUGIN, 'summary="Fine-tuning with smoothed labels: no answer is wholly certain"',
              'summary="Two\\nlines"', "test_descriptor_is_valid", "several lines"),
        Fault("smooth.py", " if num_items_in_batch is None else num_items_in_batch", "",
              "test_accumulation_changes_nothing", "model_accepts_loss_kwargs = False"),
        Fault(PLUGIN, 'config="adz_plugin_template.smooth_options:SmoothOptions",',
              'config="adz_plugin_template.smooth_options:SmoothOptions", kinds=("preference",),',
              "test_judgements_are_obeyed", "run.collate ignores both"),
        Fault(PLUGIN, 'config="adz_plugin_template.smooth_options:SmoothOptions",',
              'config="adz_plugin_template.smooth_options:SmoothOptions", '
              'kinds=("unpaired_preference",),',
              "test_judgements_are_obeyed", "run.collate ignores both"),
    ],
    "paper": [
        Fault("paper.py", '<= row.keys()', '& row.keys()', "test_it_reads_its_rows", "matches("),
        Fault("paper.py", "if not isinstance(row.get(column), str) or not row[column]:",
              "if not row[column]:", "test_strange_rows_raise_nothing_else", "KeyError"),
        Fault("paper.py", 'return Example(prompt=prompt, completion=f" {row[\'abstract\']}")',
              "return Example()", "test_it_reads_its_rows", "nothing is learnt"),
        Fault("paper.py", "or not row[column]", "", "test_it_refuses_with_a_reason", "it reads"),
        Fault(PLUGIN, 'impl="adz_plugin_template.paper:Paper",',
              'impl="adz_plugin_template.paper:Paper", kind="preference",',
              "test_its_rows_are_of_its_kind", "is read as supervised"),
        Fault("paper.py", "    def example(self",
              "    def row(self, example):\n"
              "        title, rest = example.prompt.split('\\nKeywords: ')\n"
              "        keywords = rest.removesuffix('\\nAbstract:').split(', ')\n"
              "        return dict(title=title, keywords=keywords, abstract=example.completion)\n\n"
              "    def example(self", "test_what_it_writes_it_reads", "is written as"),
    ],
    "readable": [
        Fault("readable.py", "opened.seek(offset)", "opened.seek(0)",
              "test_bytes_come_back_from_any_offset", "gives other bytes"),
        Fault("readable.py", "        sent(file.record.size)\n", "",
              "test_bytes_come_back_from_any_offset", "0 bytes were told"),
        Fault("readable.py", "if tag.isdigit() and there and", "if False and there and",
              "test_an_alias_moves_and_a_number_stays", "given to another version"),
        Fault("readable.py", "RemoteVersion(manifest, signature)", "RemoteVersion(manifest, None)",
              "test_a_version_appears_whole", "signature's bytes changed"),
    ],
    "word_f1": [
        Fault("word_f1.py", "    if shared == 0:\n        return float(given == wanted)\n", "",
              "test_it_gives_a_number_for_any_text", "ZeroDivisionError"),
        Fault(PLUGIN, 'impl="adz_plugin_template.word_f1:word_f1",',
              'impl="adz_plugin_template.word_f1:word_f1", higher_is_better=False,',
              "test_the_better_answer_scores_better", "higher_is_better=False"),
    ],
    "census": [
        Fault("census.py", '    """Count the adapters of each base."""\n    counts', "    counts",
              "test_help_lists_and_explains_it", "no docstring"),
        Fault("census.py", "@click.command()\n", "", "test_it_is_a_click_command",
              "is no click command"),
        Fault("census.py", "    if as_json:", '    raise ValueError("a bug")\n    if as_json:',
              "test_it_runs", "a bug"),
    ],
    "echo": [
        Fault("echo.py", 'words = f"{name}: {prompt}".split()', "words = prompt.split()",
              "test_it_answers_the_api", "answers as the base does"),
        Fault("echo.py", '                "total_tokens": seen.prompt_tokens + len(words),\n', "",
              "test_it_answers_the_api", "usage lacks total_tokens"),
    ],
}  # fmt: skip
