//! Chat templates out of words that the language has, in any order.

use arbitrary::Unstructured;

/// Most words of a template.
const MOST: usize = 64;

const WORDS: [&str; 96] = [
    "{{ ", " }}", "{{- ", " -}}", "{% ", " %}", "{%- ", " -%}", "{# ", " #}", "\n", "text",
    "{% for message in messages %}", "{% endfor %}", "{% if ", "{% elif ", "{% else %}", "{% endif %}",
    "{% set x = ", "{% set ns = namespace(a=0) %}", "{% set ns.a = ns.a + 1 %}",
    "{% macro m(a, b=1) %}", "{% endmacro %}", "{{ m(1) }}", "{% break %}", "{% continue %}",
    "{% generation %}", "{% endgeneration %}", "{% filter upper %}", "{% endfilter %}",
    "{% call m(2) %}", "{% endcall %}", "messages", "message", "message['content']",
    "message.role", "add_generation_prompt", "bos_token", "eos_token", "loop.index", "loop.last",
    "loop.previtem", "range(3)", "range(0, 100000000)", "range(9, 0, -2)", "[1, 2, 3]", "{'a': 1}",
    "(1, 2)", "'a'", "\"b\"", "''", "0", "1", "-1", "9223372036854775807", "1.5", "1e308", "true",
    "none", "[0]", "[-1]", "[1:]", "[::-1]", "[::0]", ".a", ".strip()", ".split(',')", ".format(1)",
    ".items()", ".replace('a', 'bb')", ".startswith('a')", " + ", " - ", " * ", " ** ", " / ", " // ",
    " % ", " ~ ", " and ", " or ", " not ", " in ", " is defined", " is string", " is none", " == ",
    " < ", " if ", " else ", "|length", "|tojson(indent=4)", "|join(',')", "|trim",
    "|selectattr('role', 'equalto', 'user')|list",
];

/// Words as the input chooses them, and now and then a text of its own.
pub fn template(of: &mut Unstructured) -> String {
    let mut source = String::new();
    for _ in 0..MOST {
        let Ok(choice) = of.arbitrary::<u8>() else { break };
        match WORDS.get(usize::from(choice) % (WORDS.len() + 1)) {
            Some(word) => source.push_str(word),
            None => source.push_str(of.arbitrary().unwrap_or_default()),
        }
        if of.is_empty() {
            break;
        }
    }
    source
}
