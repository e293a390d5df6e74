"""Codes that no text alone can produce, each with the test that does produce it."""

_LOAD = "tests/unit/sites/test_load.py::"
_CAPTURE = "tests/unit/sites/test_capture.py::"
_RUNTIME = "tests/numerics/runtime/"
_RULES = _RUNTIME + "test_ten_rules.py::"
_FILES = _RUNTIME + "test_adapter_files.py::"
_PARAMETERS = _RUNTIME + "test_parameters.py::"
_MERGE = _RUNTIME + "test_merge.py::"
_ENTRY = _RUNTIME + "test_entry.py::"
_BIND = _RUNTIME + "test_bind.py::"
_ATTENTION = "tests/numerics/test_rewrite_attention.py::"
_SPACE = "tests/unit/resolve/test_space.py::"
_SEARCH = "tests/ecosystem/test_cli_search.py::"
_TRAIN = "tests/ecosystem/test_cli_train.py::"
_PROMPT = "tests/numerics/methods/test_prompt.py::"
_REWRITE = "tests/unit/rewrite/test_check.py::"

_TRAINING = "tests/numerics/training/test_run.py::"
_LADDER = "tests/numerics/methods/test_ladder.py::"

_MASK = "tests/numerics/training/test_mask.py::"

_METHODS = "tests/numerics/methods/"
_ADALORA = "tests/numerics/methods/test_adalora.py::"

_BENCH = "tests/ecosystem/test_cli_bench.py::"

_STORED = "tests/numerics/methods/test_quantize.py::"
_LAYERS = "tests/scale/test_layers.py::"

_EXCHANGE = "tests/numerics/exchange/"

_PROGRAM = _RUNTIME + "test_program.py::"

ELSEWHERE = {
    "PEFT730": _EXCHANGE
    + "test_portable.py::test_what_is_no_product_is_named_with_its_place",
    "PEFT731": _EXCHANGE + "test_folders.py::test_what_one_folder_cannot_hold",
    "PEFT732": _EXCHANGE + "test_folders.py::test_damaged_folders_are_refused",
    "PEFT733": _EXCHANGE + "test_folders.py::test_what_is_not_known_is_refused_by_name",
    "PEFT734": _EXCHANGE
    + "test_peft_whole.py::test_without_the_base_there_is_no_whole_module",
    "PEFT735": _EXCHANGE + "test_folders.py::test_what_one_folder_cannot_hold",
    "PEFT618": _RUNTIME
    + "test_checkpointing.py::test_an_interval_is_a_number_of_blocks",
    "PEFT720": _PROGRAM + "test_operators_of_other_packages_are_refused_by_name",
    "PEFT721": _PROGRAM + "test_a_forward_that_is_another_for_other_sizes_is_refused",
    "PEFT722": _PROGRAM + "test_machine_code_needs_a_compiler",
    "PEFT446": _RUNTIME
    + "test_together.py::test_gradients_of_gradients_need_what_a_site_read",
    "PEFT740": "tests/ecosystem/test_merging.py::test_sums_that_mean_nothing",
    "PEFT741": "tests/ecosystem/test_merging.py"
    "::test_experts_that_are_stacked_while_loading",
    "PEFT710": _BENCH + "test_unequal_losses_are_refused",
    "PEFT711": _BENCH + "test_what_is_not_there_is_said",
    "PEFT712": _BENCH + "test_what_is_not_there_is_said",
    "PEFT713": _BENCH + "test_what_is_not_there_is_said",
    "PEFT700": "tests/ecosystem/test_trl.py::test_a_head_that_is_bypassed_is_told",
    "PEFT348": _METHODS + "test_ipt_space.py::test_what_no_adapter_has_is_refused",
    "PEFT689": _METHODS + "test_ipt_space.py::test_batches_say_what_they_are_about",
    "PEFT330": _MASK + "test_scores_that_tell_nothing_are_refused",
    "PEFT332": "tests/numerics/methods/test_fishmask.py::test_too_few_to_keep",
    "PEFT333": "tests/numerics/methods/test_far.py::test_codes_do_not_learn",
    "PEFT334": "tests/numerics/test_pairs.py::test_a_pair",
    "PEFT331": _MASK + "test_groups_have_to_divide",
    "PEFT696": _METHODS
    + "test_stlr.py::test_a_rise_of_no_steps_and_two_schedules_are_refused",
    "PEFT697": _METHODS + "test_loraplus.py::test_names_that_nothing_has_are_refused",
    "PEFT698": _METHODS + "test_optimizer.py::test_another_optimizer_is_refused",
    "PEFT699": _METHODS + "test_distill.py::test_teachers_that_do_not_fit_are_refused",
    "PEFT686": _METHODS
    + "test_distill_layers.py::test_layers_that_cannot_be_compared_are_refused",
    "PEFT643": _METHODS + "test_distill_layers.py::test_floats_that_are_gone",
    "PEFT695": _ADALORA + "test_phases_that_do_not_fit_are_refused",
    "PEFT322": _ADALORA + "test_what_zeros_do_not_drop_is_not_cut",
    "PEFT350": _LADDER + "test_what_would_have_no_effect_or_no_size",
    "PEFT351": _LADDER + "test_what_would_have_no_effect_or_no_size",
    "PEFT352": _LADDER + "test_what_would_have_no_effect_or_no_size",
    "PEFT353": _LADDER + "test_what_would_have_no_effect_or_no_size",
    "PEFT354": _LADDER + "test_what_would_have_no_effect_or_no_size",
    "PEFT455": _LADDER + "test_models_that_have_none",
    "PEFT690": _TRAINING + "test_how_long_a_run_is_has_to_be_known",
    "PEFT691": _TRAINING + "test_a_control_that_needs_data_gets_some",
    "PEFT692": _TRAINING + "test_a_state_of_other_controls_is_refused",
    "PEFT693": _TRAINING + "test_the_order_of_a_loop",
    "PEFT694": _TRAINING + "test_a_loop_without_a_run_is_refused",
    "PEFT345": _STORED + "test_a_fused_weight_is_stored_as_a_whole",
    "PEFT347": _STORED + "test_a_router_is_never_stored",
    "PEFT450": _STORED + "test_codes_that_a_graph_was_not_given",
    "PEFT644": "tests/scale/test_base_shards.py::test_one_process_is_refused",
    "PEFT640": _STORED + "test_removing_needs_the_originals_or_a_word",
    "PEFT641": _STORED + "test_merging_into_codes_needs_codes",
    "PEFT642": _STORED + "test_disabled_is_the_decoded_base",
    "PEFT108": "tests/unit/syntax/test_limits.py::test_too_large",
    "PEFT223": "tests/unit/equations/test_library.py::test_unreadable",
    "PEFT224": "tests/unit/equations/test_library.py::test_definitions_only",
    "PEFT400": _LOAD + "test_not_found",
    "PEFT401": _LOAD + "test_unreadable_configuration",
    "PEFT402": _LOAD + "test_unknown_type",
    "PEFT403": _LOAD + "test_ambiguous_architecture",
    "PEFT404": _LOAD + "test_no_weights",
    "PEFT405": _LOAD + "test_unreadable_weights",
    "PEFT406": _LOAD + "test_missing_weights",
    "PEFT407": _LOAD + "test_a_model_that_cannot_be_built",
    "PEFT408": _LOAD + "test_too_large",
    "PEFT410": "tests/unit/sites/test_inputs.py::test_what_cannot_be_made_up_is_named",
    "PEFT411": _CAPTURE + "test_a_graph_break_is_said",
    "PEFT412": "tests/unit/sites/test_view.py"
    "::test_a_model_without_products_has_no_sites",
    "PEFT430": _REWRITE + "test_a_used_weight_without_a_site_is_refused",
    "PEFT431": _REWRITE + "test_a_reader_that_does_not_read_the_edge_is_refused",
    "PEFT432": _REWRITE + "test_a_located_site_that_was_not_rewritten_is_found",
    "PEFT433": _REWRITE + "test_a_reader_of_a_replaced_value_is_found",
    "PEFT434": _REWRITE + "test_a_tensor_that_nothing_reads_is_found",
    "PEFT435": _REWRITE + "test_an_edge_without_a_tap_has_no_u",
    "PEFT436": _REWRITE
    + "test_rows_that_read_the_base_of_a_rewritten_matrix_are_refused",
    "PEFT320": "tests/unit/plan/test_positions.py::test_no_position_is_left",
    "PEFT321": "tests/unit/plan/test_positions.py::test_positions_that_are_computed",
    "PEFT342": _PROMPT + "test_positions_run_out",
    "PEFT343": _PROMPT + "test_a_text_needs_a_tokenizer",
    "PEFT445": _PROMPT + "test_what_rows_cannot_be_put_among",
    "PEFT438": _ATTENTION + "test_what_cannot_be_extended_is_refused",
    "PEFT439": _ATTENTION + "test_what_cannot_be_extended_is_refused",
    "PEFT440": _ATTENTION + "test_queries_that_are_no_tokens_have_no_rows_of_their_own",
    "PEFT441": "tests/numerics/test_real_tokens.py"
    "::test_a_mask_of_four_axes_says_nothing_of_tokens",
    "PEFT437": _REWRITE + "test_what_cannot_run_twice_is_refused",
    "PEFT500": "tests/unit/rewrite/test_emit.py"
    "::test_separate_tokens_are_refused_where_there_are_none",
    "PEFT501": "tests/unit/rewrite/test_emit.py::test_an_unknown_function_is_refused",
    "PEFT510": "tests/numerics/test_experts.py::test_no_token_axis",
    "PEFT600": _RULES + "test_1_the_marker_refuses_real_tensors",
    "PEFT601": _RULES + "test_4_calling_a_layer_is_refused",
    "PEFT602": _RUNTIME
    + "test_ten_rules.py::test_3_a_graph_without_a_marker_is_refused",
    "PEFT603": _RULES + "test_3_a_replaced_module_is_refused",
    "PEFT604": _ENTRY + "test_what_cannot_be_captured_is_said",
    "PEFT605": _RUNTIME
    + "test_ten_rules.py::test_5_too_many_graphs_of_one_model_is_an_error",
    "PEFT606": _BIND + "test_markers_that_disagree_are_refused",
    "PEFT607": _PARAMETERS + "test_an_unknown_backend",
    "PEFT610": _PARAMETERS + "test_a_model_that_is_compiled_already",
    "PEFT611": _PARAMETERS + "test_a_sharded_base",
    "PEFT612": _PARAMETERS + "test_owners_that_cannot_take_a_child",
    "PEFT613": _PARAMETERS + "test_a_missing_weight",
    "PEFT614": _RUNTIME
    + "test_parameters.py::test_a_shared_tensor_on_two_devices_is_refused",
    "PEFT620": _FILES + "test_nothing_there",
    "PEFT621": _FILES + "test_a_truncated_file",
    "PEFT622": _FILES + "test_a_file_with_other_content",
    "PEFT623": _FILES + "test_a_file_with_other_content",
    "PEFT624": _RUNTIME
    + "test_adapter_files.py::test_what_is_not_finite_is_not_written",
    "PEFT625": _FILES + "test_another_base_is_refused",
    "PEFT626": _FILES + "test_another_plan_is_refused",
    "PEFT627": _FILES + "test_a_full_disk_leaves_the_old_file",
    "PEFT630": _RUNTIME
    + "test_merge.py::test_what_cannot_merge_is_told_in_full_and_changes_nothing",
    "PEFT631": _MERGE + "test_states_in_which_it_is_not_possible",
    "PEFT632": _MERGE + "test_a_bias_is_created_and_taken_away",
    "PEFT310": "tests/unit/plan/test_build.py::test_an_unknown_dtype_is_refused",
    "PEFT311": _RUNTIME + "test_memory.py::test_a_step_has_whole_sizes",
    "PEFT633": "tests/unit/sites/test_interfaces.py::test_what_is_missing_is_said",
    "PEFT306": "tests/unit/plan/test_text.py::test_something_else_is_no_plan",
    "PEFT355": "tests/numerics/methods/test_sparse.py::"
    "test_scores_of_zeros_are_not_compared",
    "PEFT650": _RUNTIME + "test_adapter_slots.py::test_what_cannot_be_is_said",
    "PEFT651": _RUNTIME + "test_adapter_slots.py::test_what_cannot_be_is_said",
    "PEFT652": _RUNTIME + "test_samples.py::test_what_cannot_be_is_said",
    "PEFT653": _RUNTIME + "test_samples.py::test_what_all_samples_share",
    "PEFT458": _RUNTIME + "test_samples.py::test_values_that_samples_do_not_lead",
    "PEFT459": _RUNTIME + "test_samples.py::test_equations_that_mix_samples",
    "PEFT654": _RUNTIME + "test_combinations.py::test_what_cannot_be_is_said",
    "PEFT655": _RUNTIME + "test_combinations.py::test_it_is_no_adapter",
    "PEFT656": _RUNTIME + "test_stacks.py::test_what_cannot_be_is_said",
    "PEFT660": "tests/ecosystem/test_cli.py::"
    "test_what_peftc_did_not_write_is_not_replaced",
    "PEFT447": "tests/kernels/test_backend.py::test_without_a_card_it_is_said",
    "PEFT448": "tests/kernels/test_backend.py::test_a_faulty_kernel_is_refused",
    "PEFT608": "tests/scale/test_deepspeed.py::test_zero_3_is_refused",
    "PEFT609": "tests/scale/test_dispatched.py::test_a_dispatched_model_is_refused",
    "PEFT615": _LAYERS + "test_what_needs_the_whole_model_is_refused",
    "PEFT616": _LAYERS + "test_what_needs_the_whole_model_is_refused",
    "PEFT619": _LAYERS + "test_tensors_of_another_layer_are_out_of_reach",
    "PEFT661": "tests/ecosystem/test_cli.py::test_explain_knows_codes_and_methods",
    "PEFT662": "tests/ecosystem/test_cli.py::test_generate_needs_a_tokenizer",
    "PEFT663": "tests/ecosystem/test_cli.py::test_fmt_is_canonical_and_checks",
    "PEFT664": "tests/ecosystem/test_cli_verify.py::test_a_failure_has_its_exit_code",
    "PEFT665": "tests/ecosystem/test_cli_opt.py::test_passes_that_cannot_run",
    "PEFT666": "tests/ecosystem/test_cli_opt.py::test_passes_that_cannot_run",
    "PEFT667": "tests/ecosystem/test_cli_replay.py"
    "::test_a_damaged_folder_is_a_diagnostic",
    "PEFT668": "tests/ecosystem/test_cli_doctor.py::test_what_does_not_work_is_said",
    "PEFT669": "tests/ecosystem/test_cli_replay.py"
    "::test_a_crash_is_seen_again_and_its_end_too",
    "PEFT670": "tests/ecosystem/test_cli_replay.py::test_another_failure_is_told_apart",
    "PEFT671": _TRAIN + "test_a_missing_package_is_said",
    "PEFT672": _TRAIN + "test_what_cannot_be_trained_is_said",
    "PEFT673": _TRAIN + "test_what_cannot_be_trained_is_said",
    "PEFT674": _TRAIN + "test_what_cannot_be_trained_is_said",
    "PEFT675": _TRAIN + "test_what_cannot_be_trained_is_said",
    "PEFT676": _TRAIN + "test_tokens_that_the_model_lacks",
    "PEFT677": _TRAIN + "test_what_cannot_be_trained_is_said",
    "PEFT678": _TRAIN + "test_what_cannot_be_trained_is_said",
    "PEFT679": _TRAIN + "test_only_the_same_run_goes_on",
    "PEFT680": _TRAIN + "test_only_the_same_run_goes_on",
    "PEFT682": _SPACE + "test_what_is_no_choice_is_said",
    "PEFT683": _SPACE + "test_what_is_no_choice_is_said",
    "PEFT685": _SEARCH + "test_a_search_without_result_is_an_error",
    "PEFT687": _TRAIN + "test_what_cannot_be_trained_is_said",
    "PEFT617": "tests/numerics/training/test_finite.py::"
    "test_a_watched_model_stops_there",
    "PEFT688": _TRAIN + "test_a_loss_that_is_not_finite_stops",
    "PEFT901": "tests/ecosystem/test_cli.py::test_a_crash_leaves_a_reproducer",
}
