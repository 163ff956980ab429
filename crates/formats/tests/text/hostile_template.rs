//! Templates that want more than they get, or something that is not theirs: each ends soon, with a
//! typed error, and nothing but text comes out.

use halfstep_formats::Error;
use halfstep_formats::template::{Message, render};
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// Alone on the machine the slowest takes a tenth of this; others use it too.
const TIME: Duration = Duration::from_secs(2);
/// Less than the stack of a browser's module.
const STACK: usize = 512 << 10;

fn messages() -> Vec<Message> {
    ["system", "user", "assistant", "user"]
        .into_iter()
        .map(|role| Message { role: role.into(), content: format!("I am {role}.") })
        .collect()
}

/// Renders on a small stack, within the time (at one of three tries).
fn rendered(template: String) -> Result<String, Error> {
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let (start, template) = (Instant::now(), template.clone());
        let thread = std::thread::Builder::new().stack_size(STACK);
        let result = thread
            .spawn(move || render(&template, &messages(), true, "<s>", "</s>"))
            .expect("a thread")
            .join()
            .expect("no panic");
        fastest = fastest.min(start.elapsed());
        if fastest < TIME {
            return result;
        }
    }
    panic!("{fastest:?}: {}", template.chars().take(80).collect::<String>());
}

#[test]
fn an_error_names_the_line() {
    for (template, line) in [
        ("a\n{% if x %}\n{{ 1 / 0 }}\n{% endif %}", 0),
        ("a\n\n{{ 1 / 0 }}", 3),
        ("{% for i in [1] %}\n\n\n{{ y.z }}{% endfor %}", 4),
        ("\n{% if %}", 2),
    ] {
        match (rendered(template.into()), line) {
            (Ok(_), 0) => {}
            (Err(error), line) => {
                assert!(error.to_string().contains(&format!("line {line}:")), "{error}")
            }
            (other, _) => panic!("{other:?}"),
        }
    }
}

/// What is just allowed: limits are not met by templates and messages as they are.
#[test]
fn large_but_honest_chats_are_rendered() {
    let template = "{% for m in messages %}\
         {{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>' + '\n' }}\
         {% endfor %}";
    let chat = |count: usize, bytes: usize| {
        (0..count)
            .map(|_| Message { role: "user".into(), content: "x".repeat(bytes) })
            .collect::<Vec<_>>()
    };
    for messages in [chat(20_000, 100), chat(40, 100_000), chat(1, 6_000_000)] {
        let text = render(template, &messages, false, "", "").expect("renders");
        assert_eq!(
            text.len(),
            messages
                .iter()
                .map(|m| m.content.len() + "<|im_start|>user\n<|im_end|>\n".len())
                .sum::<usize>()
        );
    }
}

const WHOLE: &str = "\
    {%- set ns = namespace(i=0) -%}{% macro f(m, tag='x') %}<{{ tag }}>{{ m.content | trim }}\
    {% endmacro %}{# c #}
{% for m in messages if m.role != 'system' %}{% if loop.first and not loop.last %}\
    {{ bos_token ~ f(m, tag=m['role']) }}{% elif m.content[1:].split(' ')[-1] is string %}
{{ {'a': [1, 2.5, none], \"b\": m.role | upper} | tojson(indent=2) }}{% else %}\
    {% continue %}{% endif %}{% set ns.i = ns.i + 1 %}{% endfor %}
{% set x %}{{ ns.i }}{% endset %}{% filter upper %}{{ x }}{% endfilter %}{% raw %}{{ }}\
    {% endraw %}{{ 'a' if add_generation_prompt else 'b' }}";

#[test]
fn every_cut_and_every_changed_byte_ends() {
    rendered(WHOLE.into()).expect("the whole template renders");
    for end in (0..WHOLE.len()).filter(|&end| WHOLE.is_char_boundary(end)) {
        let _ = render(&WHOLE[..end], &messages(), true, "<s>", "</s>");
        for other in ['{', '}', '%', '\'', '(', '-', '9', '|', '\n', 'é'] {
            let mut changed: Vec<char> = WHOLE.chars().collect();
            let at = end.min(changed.len() - 1);
            changed[at] = other;
            let _ =
                render(&changed.into_iter().collect::<String>(), &messages(), true, "<s>", "</s>");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Words of the language in any order.
    #[test]
    fn any_words_end_without_a_panic(
        words in proptest::collection::vec(prop::sample::select(WORDS), 0..40),
    ) {
        let _ = render(&words.concat(), &messages(), true, "<s>", "</s>");
        let _ = render(&format!("{{{{ {} }}}}", words.join(" ")), &messages(), true, "<s>", "</s>");
    }

    #[test]
    fn any_text_ends_without_a_panic(text: String) {
        let _ = render(&text, &messages(), true, "<s>", "</s>");
        let _ = render(&format!("{{% {text} %}}"), &messages(), true, "<s>", "</s>");
    }
}

const WORDS: &[&str] = &[
    "{{",
    "}}",
    "{%",
    "%}",
    "{%-",
    "-%}",
    "{#",
    "#}",
    "for ",
    " in ",
    "if ",
    " else ",
    "endif",
    "endfor",
    "set ",
    "x",
    "y",
    "=",
    "messages",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ".",
    ",",
    ":",
    "|",
    "~",
    "+",
    "-",
    "*",
    "//",
    "%",
    "**",
    "==",
    "<",
    " not ",
    " and ",
    " or ",
    " is ",
    "defined",
    "1",
    "0",
    "-1",
    "9223372036854775807",
    "1.5",
    "1e308",
    "'a'",
    "''",
    "'é\\n'",
    "loop",
    ".index",
    ".role",
    "['role']",
    "[::-1]",
    "[1:]",
    "|upper",
    "|length",
    "|tojson",
    "|list",
    "|sort",
    "|first",
    "|map('upper')",
    "|selectattr('role')",
    "|join(',')",
    "|int",
    "|round(2)",
    "|unique",
    "|indent",
    "|reverse",
    "|sum",
    "|max",
    ".split()",
    ".strip('a')",
    ".items()",
    ".replace('a','b')",
    "range(3)",
    "namespace(a=1)",
    "dict(a=1)",
    "macro f(a)",
    "endmacro",
    "f(1)",
    "call f(1)",
    "endcall",
    "filter upper",
    "endfilter",
    "endset",
    "raw",
    "endraw",
    "none",
    "true",
    "break",
    "continue",
    " ",
    "\n",
];
