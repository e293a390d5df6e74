"""Codes that no text alone can produce, each with the test that does produce it."""

_LOAD = "tests/unit/sites/test_load.py::"
_CAPTURE = "tests/unit/sites/test_capture.py::"
_REWRITE = "tests/unit/rewrite/test_check.py::"

ELSEWHERE = {
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
    "PEFT410": _CAPTURE + "test_only_text_models_have_example_inputs",
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
    "PEFT437": _REWRITE + "test_what_cannot_run_twice_is_refused",
    "PEFT500": "tests/unit/rewrite/test_emit.py"
    "::test_separate_tokens_are_refused_where_there_are_none",
    "PEFT501": "tests/unit/rewrite/test_emit.py::test_an_unknown_function_is_refused",
}
