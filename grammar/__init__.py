"""The grammar of `.peft` texts: `peft.lark` has the rules, `terminals.lark` the words.

Read by `peftc.syntax.grammar`; editor grammars can be generated from the terminals.
"""
