"""What texts mean: one case per point of the language."""

from __future__ import annotations

from typing import Any

import pytest

from peftc.diagnostics.core import PeftcError
from peftc.syntax import ast
from peftc.syntax.comments import without_comments
from peftc.syntax.parse import parse_expr, parse_method, parse_spec
from peftc.syntax.print import print_expr, print_method, print_spec
from peftc.syntax.walk import walk


def shape(node: Any) -> Any:
    """A tree as nested tuples of operators and names: short to write in a test."""
    match node:
        case ast.Name(id):
            return id
        case ast.Number(value):
            return value
        case ast.Negate(operand):
            return ("-", shape(operand))
        case ast.Binary(op, left, right):
            return (op, shape(left), shape(right))
        case ast.Call(head, args):
            return ("call", shape(head), *map(shape, args))
        case ast.Transpose(operand):
            return ("T", shape(operand))
        case ast.Index(operand, indices):
            return ("at", shape(operand), *map(shape, indices))
    raise AssertionError(node)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a + b - c", ("-", ("+", "a", "b"), "c")),
        ("a / b * c", ("*", ("/", "a", "b"), "c")),
        ("s * B @ A", ("*", "s", ("@", "B", "A"))),
        ("-a @ b * c", ("*", ("-", ("@", "a", "b")), "c")),
        ("a * -b", ("*", "a", ("-", "b"))),
        ("A @ B @ C", ("@", ("@", "A", "B"), "C")),
        ("A @ B.T", ("@", "A", ("T", "B"))),
        ("R.T(x)", ("call", ("T", "R"), "x")),
        ("P[k] @ f(x)", ("@", ("at", "P", "k"), ("call", "f", "x"))),
        ("a.b.T", ("T", "a.b")),
        ("f(x)(y)[i, j]", ("at", ("call", ("call", "f", "x"), "y"), "i", "j")),
        ("(a + b) * 2", ("*", ("+", "a", "b"), 2)),
    ],
)
def test_precedence(text: str, tree: Any) -> None:
    assert shape(parse_expr(text)) == tree


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("((a))+(b*(c))", "a + b * c"),
        ("a-(b-c)", "a - (b - c)"),
        ("(a-b)-c", "a - b - c"),
        ("a/(b*c)", "a / (b * c)"),
        ("(-a)*b", "-a * b"),
        ("-(a*b)", "-(a * b)"),
        ("-(a@b)", "-a @ b"),
        ("(-a)@b", "(-a) @ b"),
        ("a@(-b)", "a @ (-b)"),
        ("a@(b@c)", "a @ (b @ c)"),
        ("(a@b).T", "(a @ b).T"),
        ("(a+b)(x)", "(a + b)(x)"),
        ("f(x,[out,in*2 ])", "f(x, [out, in*2])"),
        ("sum [k:n/2](A[k])", "sum[k: n/2](A[k])"),
        ("1E-05", "1e-5"),
        ("1e+22", "1e22"),
        ("2.50%", "2.5%"),
        ("1.0", "1.0"),
        ("- - a", "--a"),
    ],
)
def test_printing_expressions(text: str, printed: str) -> None:
    assert print_expr(parse_expr(text)) == printed
    assert parse_expr(printed) == parse_expr(text)


def spec(text: str) -> ast.SpecExpr:
    (item,) = parse_spec(text).items
    assert isinstance(item, ast.Main)
    return item.body


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("a(q)+b(k)+c()", "a(q) + b(k) + c()"),
        ("(a(q)+b(k))+(c())", "a(q) + b(k) + c()"),
        ("(a()+b())@enc@layers(0..11,15)", "(a() + b()) @ enc @ layers(0..11, 15)"),
        ("a()+b()@dec", "a() + b() @ dec"),
        ("(a()@x)@y", "a() @ x @ y"),
        ('a("*.c_attn"?,q?,experts.up)', 'a("*.c_attn"?, q?, experts.up)'),
        ("a(b(q)+c(),(d()@enc))", "a(b(q) + c(), d() @ enc)"),
        ("a(q,r=2*(n+1),p=5%,act=gelu,)", "a(q, r=2*(n+1), p=5%, act=gelu)"),
        ("a()@layers(0..n-1, k)", "a() @ layers(0..n-1, k)"),
        ("a(q, 8)", "a(q, 8)"),
    ],
)
def test_printing_specs(text: str, printed: str) -> None:
    assert print_spec(spec(text)) == printed
    assert spec(printed) == spec(text)


def test_a_range_of_one_layer() -> None:
    body = spec("a() @ layers(5)")
    assert isinstance(body, ast.Scoped)
    (layers,) = body.scope.ranges
    assert layers.first == layers.last


def test_words_of_the_language_are_names_where_they_can_be() -> None:
    text = "method m(loss = 1, shared = 2, sum = 3, t: method) on linear {\n"
    text += "  param s[n] = 0, c[] = loss\n  shared param k[n] = 0\n  loss += sum(k)\n"
    text += "  n = loss\n  y' = shared * sum * y\n}"
    method = parse_method(text)
    kinds = [type(statement).__name__ for statement in method.clauses[0].body]
    assert kinds == ["Declare", "Declare", "Loss", "Define", "Rule"]
    assert print_method(method) == text


def test_several_clauses_with_guards() -> None:
    method = parse_method(
        "method m(a = true) on linear { y' = 2 * y }"
        " on ffn.down where a or biased { x' = x }"
    )
    first, second = method.clauses
    assert (first.place, first.guard) == ("linear", ())
    names = [[test.name for test in tests] for tests in second.guard]
    assert (second.place, names) == ("ffn.down", [["a"], ["biased"]])


def test_a_parenthesis_at_the_start_of_a_line_begins_an_item() -> None:
    file = parse_spec("let n = r\n(a() + b()) @ enc")
    assert [type(item).__name__ for item in file.items] == ["Let", "Main"]
    file = parse_spec("spec s() =\n(a() + b()) @ enc\nlet n = 2 *\n(3 + 4)")
    assert [type(item).__name__ for item in file.items] == ["Macro", "Let"]


def test_equations_may_break_their_lines_anywhere() -> None:
    text = "method m() on linear { y' =\ny\n+ U\n(D\n(x)) z = y }"
    assert len(parse_method(text).clauses[0].body) == 2


def test_spans_are_exact() -> None:
    text = "let n = (a + b) * f(-c.T, d[k])\nlora(q?, r=2 * n) @ layers(0..3)"
    for node, _ in walk(parse_spec(text).items):
        match node:
            case ast.Name(id):
                assert node.span.text.strip("()") == id
            case ast.Arg(name=name) if name:
                assert node.span.text == "r=2 * n"
            case ast.Binary() | ast.Call() | ast.Negate() | ast.Index():
                assert parse_expr(node.span.text) == node
            case ast.LayerRange():
                assert node.span.text == "0..3"
            case ast.Scope():
                assert node.span.text == "layers(0..3)"
            case ast.Optional():
                assert node.span.text == "q?"


def test_a_span_covers_the_parentheses() -> None:
    expr = parse_expr("((a + b)) * c")
    assert isinstance(expr, ast.Binary)
    assert expr.left.span.text == "((a + b))"
    assert expr.span.text == "((a + b)) * c"


def test_comments_are_on_their_nodes() -> None:
    text = "# one\n# two\nlet a = 1 # behind\n\n# last\n"
    file = parse_spec(text)
    (let,) = file.items
    assert (let.leading, let.trailing) == (("one", "two"), "behind")
    assert file.closing == ("last",)


def test_comments_can_be_left_out() -> None:
    text = "# a\nmethod m() on linear { # b\n  y' = y # c\n # d\n} # e\n"
    (method,) = parse_spec(text).items
    assert isinstance(method, ast.Method)
    assert "#" not in print_method(without_comments(method))
    assert without_comments(method) == parse_method(text)


def test_every_start_wants_one_whole_text() -> None:
    for text in ("", "method a() on x {} method b() on x {}", "let a = 1"):
        with pytest.raises(PeftcError):
            parse_method(text)
    for text in ("", "a b", "a +", "(a", "let a = 1", "a ^ b"):
        with pytest.raises(PeftcError):
            parse_expr(text)


def test_broken_items_do_not_hide_each_other() -> None:
    text = "let a 1\nlet b = (\nlet c = 3\nmethod m( on x { }\nspec s() = t(\nu(q w)"
    with pytest.raises(PeftcError) as caught:
        parse_spec(text)
    lines = [error.span.line for error in caught.value.diagnostics if error.span]
    assert lines == [1, 2, 4, 5]


def test_nothing_is_executed_or_opened_while_parsing() -> None:
    import sys

    seen: list[str] = []
    watching = True

    def watch(event: str, _: Any) -> None:
        if watching and event in {"exec", "import", "open", "compile"}:
            seen.append(event)

    parse_spec("lora(q)")
    sys.addaudithook(watch)
    with pytest.raises(PeftcError):
        parse_spec('use "/etc/passwd"\nlora(__import__("os").system("id"))\na(q w)')
    parse_spec('use "/etc/passwd"\nlora(q, r=exec("1"))')
    watching = False
    assert seen == []
