"""What is promised of other tools, and the tests that run it for real.

In: nothing.  Out: PARAGRAPHS, which docs/compatibility.md is made from.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Results: TypeAlias = "Mapping[str, str]"
"""How each test ended, by `tests/folder/test_file.py::test_name[case]`."""


@dataclass(frozen=True)
class Row:
    """Something promised, and the files or tests that run it."""

    promise: str
    tests: tuple[str, ...]

    def ends(self, results: Results) -> Counter[str]:
        """How many of its tests ended how."""
        own = (end for name, end in results.items() if self.has(name))
        return Counter(own)

    def has(self, name: str) -> bool:
        """Whether a test, or all cases of it, is one of its own."""
        starts = tuple(f"{own}{sign}" for own in self.tests for sign in ("::", "["))
        return name in self.tests or name.startswith(starts)


_ECO, _NUM = "tests/ecosystem/", "tests/numerics/"
_RUN, _SCALE = f"{_NUM}runtime/", "tests/scale/"

PARAGRAPHS: dict[str, tuple[Row, ...]] = {
    "Training stacks": (
        Row(
            "transformers Trainer: checkpoints of the adapter alone, resumed bit for"
            " bit, the best one at the end",
            (f"{_RUN}test_trainer.py", f"{_ECO}test_examples.py::test_trainer"),
        ),
        Row(
            "gradient accumulation with `num_items_in_batch`",
            (f"{_ECO}test_stacks.py::test_accumulated_batches_count_their_items",),
        ),
        Row(
            "Seq2SeqTrainer: generation while evaluating, best checkpoint, resuming",
            (f"{_ECO}test_stacks.py::test_sequence_to_sequence",),
        ),
        Row("TRL SFTTrainer", (f"{_ECO}test_trl.py::test_sft_follows_a_loop",)),
        Row(
            "TRL DPOTrainer, the reference being the base under the adapter",
            (
                f"{_ECO}test_trl.py::test_dpo_compares_with_the_base",
                f"{_ECO}test_trl.py::test_a_reference_shares_all_tensors",
            ),
        ),
        Row(
            "a loop with accelerate",
            (f"{_ECO}test_stacks.py::test_a_loop_with_accelerate",),
        ),
        Row("a plain loop", (f"{_NUM}training/test_run.py",)),
        Row("PyTorch Lightning", (f"{_ECO}test_stacks.py::test_lightning",)),
    ),
    "Memory": (
        Row(
            "gradient checkpointing, by Transformers' switch and by our own blocks",
            (f"{_RUN}test_checkpointing.py", f"{_RUN}test_inductor.py"),
        ),
        Row(
            "nothing is kept, and no backward runs, below the lowest trained site",
            (f"{_RUN}test_below.py",),
        ),
        Row(
            "`inputs_embeds`, hidden states, attentions",
            (
                f"{_RUN}test_entry.py::test_gradients_reach_given_embeddings",
                f"{_RUN}test_entry.py::test_hidden_states_and_attentions",
                f"{_RUN}test_below.py::test_hidden_states_need_gradients_from_the_lowest"
                "_site_on",
            ),
        ),
    ),
    "Compilers": (
        Row(
            "Inductor trains and generates, graphs counted and bounded",
            (
                f"{_RUN}test_inductor.py::test_the_numbers_of_eager_in_a_bounded_number"
                "_of_graphs",
            ),
        ),
        Row(
            "torch.export: a program that torch runs alone, any batch and length",
            (
                f"{_RUN}test_program.py::test_programs_run_in_a_process_with_torch_alone",
                f"{_ECO}test_examples.py::test_a_program_is_served_by_torch_alone",
            ),
        ),
        Row(
            "AOTInductor packages",
            (
                f"{_RUN}test_program.py::test_a_compiled_package_runs_in_a_process_with"
                "_torch_alone",
            ),
        ),
    ),
    "Scale": (
        Row(
            "DDP, whatever `optimize_ddp` says",
            (f"{_SCALE}test_data_parallel.py",),
        ),
        Row(
            "FSDP2, per layer and at the root, with a frozen base in bfloat16",
            (f"{_SCALE}test_sharded.py",),
        ),
        Row(
            "entries of single layers: equal numbers, and no layer reaches another's",
            (f"{_SCALE}test_layers.py",),
        ),
        Row(
            "a frozen base in parts, the model in one graph",
            (f"{_SCALE}test_base_shards.py",),
        ),
        Row(
            "Trainer under torchrun and accelerate launch",
            (f"{_SCALE}test_launched.py",),
        ),
        Row(
            "saving once, resuming with another number of processes",
            (f"{_SCALE}test_resumed.py",),
        ),
        Row(
            "DeepSpeed ZeRO-1 and 2; ZeRO-3 is refused by name",
            (f"{_SCALE}test_deepspeed.py",),
        ),
        Row(
            "models that accelerate dispatches are refused by name",
            (f"{_SCALE}test_dispatched.py",),
        ),
    ),
    "Many adapters": (
        Row(
            "slots: add, activate, save, remove, without a capture",
            (f"{_RUN}test_adapter_slots.py",),
        ),
        Row("an adapter for each row of a batch", (f"{_RUN}test_samples.py",)),
        Row("weighted sums", (f"{_RUN}test_combinations.py",)),
        Row("stacks, and adapters of other specs", (f"{_RUN}test_stacks.py",)),
    ),
    "Other tools' files": (
        Row(
            "Hugging Face PEFT, there and back: LORA with rslora and dora",
            (f"{_NUM}exchange/test_peft_lora.py",),
        ),
        Row("IA3", (f"{_NUM}exchange/test_peft_ia3.py",)),
        Row(
            "prefix tuning, prompt tuning, p-tuning",
            (f"{_NUM}exchange/test_peft_rows.py",),
        ),
        Row(
            "ADALORA, LOHA, LOKR, VERA",
            (f"{_NUM}exchange/test_peft_factors.py",),
        ),
        Row(
            "modules_to_save, LN_TUNING",
            (f"{_NUM}exchange/test_peft_whole.py",),
        ),
        Row(
            "plain low rank for servers",
            (f"{_NUM}exchange/test_portable.py",),
        ),
        Row(
            "folders of AdapterHub",
            (f"{_NUM}exchange/test_adapterhub_folders.py",),
        ),
        Row(
            "what a format cannot say, and damaged folders, are refused by name",
            (f"{_NUM}exchange/test_folders.py", f"{_ECO}test_cli_exchange.py"),
        ),
    ),
    "Merging": (
        Row(
            "file by file and tensor by tensor, never the whole model in memory",
            (
                f"{_ECO}test_merging.py::test_files_are_those_of_a_merge_in_memory",
                f"{_ECO}test_merging.py::test_a_model_is_never_in_memory_whole",
            ),
        ),
        Row(
            "bases in codes: to floats with the error measured, or to codes again",
            (f"{_ECO}test_merging.py::test_a_base_in_codes",),
        ),
        Row(
            "tied weights stay tied, or are written apart",
            (f"{_ECO}test_merging.py::test_tied_weights",),
        ),
        Row(
            "sums of adapters: linear, TIES, DARE",
            (
                f"{_ECO}test_merging.py::test_a_sum_of_adapters",
                f"{_ECO}test_merging.py::test_sums_are_those_of_other_implementations",
                f"{_ECO}test_merging.py::test_dare_keeps_a_part_and_the_mean",
            ),
        ),
    ),
    "Hub": (Row("`push_to_hub` with a model card", (f"{_ECO}test_hub.py",)),),
    "Faults": (
        Row(
            "killed at 200 random moments of a save",
            (
                f"{_ECO}test_faults.py::test_an_adapter_killed_at_any_moment",
                f"{_ECO}test_faults.py::test_a_folder_killed_at_any_moment",
            ),
        ),
        Row(
            "full disks, places where nothing can be written",
            (
                f"{_ECO}test_faults.py::test_an_adapter_for_which_there_is_no_room",
                f"{_ECO}test_faults.py::test_a_folder_for_which_there_is_no_room",
                f"{_ECO}test_faults.py::test_a_place_where_nothing_can_be_written",
            ),
        ),
        Row(
            "several processes that compile into one place and cache",
            (f"{_ECO}test_faults.py::test_several_compile_into_the_same_place",),
        ),
        Row(
            "a loss that is not finite: the step, the site, the last checkpoint",
            (f"{_NUM}training/test_finite.py",),
        ),
        Row(
            "cut-off downloads, another base, another vocabulary, newer formats",
            (
                f"{_ECO}test_faults.py::test_a_download_that_was_cut_off",
                f"{_ECO}test_faults.py::test_a_vocabulary_that_was_changed",
                f"{_ECO}test_faults.py::test_a_format_of_the_future",
                f"{_RUN}test_adapter_files.py",
            ),
        ),
    ),
}
