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

/// Templates that run into a limit.
fn exhausting() -> Vec<(&'static str, String)> {
    let doubled = |step: &str| {
        format!(
            "{{% set ns = namespace(x='ab', l=[1]) %}}{{% for i in range(60) %}}{step}\
                 {{% endfor %}}{{{{ ns.x | length }}}}"
        )
    };
    vec![
        ("range of 1e8", "{% for i in range(100000000) %}x{% endfor %}".into()),
        ("range of 2^63", "{{ range(9223372036854775807) }}".into()),
        (
            "range from end to end",
            "{{ range(-9223372036854775807, 9223372036854775807) | length }}".into(),
        ),
        (
            "nested loops",
            "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{{ a }}\
             {% endfor %}{% endfor %}{% endfor %}"
                .into(),
        ),
        (
            "nested loops that write nothing",
            "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}".into(),
        ),
        ("recursive macro", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".into()),
        (
            "macros that call each other",
            "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}"
                .into(),
        ),
        (
            "macro that calls itself twice",
            "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}\
             {{ f(60) }}"
                .into(),
        ),
        (
            "caller that calls",
            "{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}"
                .into(),
        ),
        ("text doubled by ~", doubled("{% set ns.x = ns.x ~ ns.x %}")),
        ("text doubled by +", doubled("{% set ns.x = ns.x + ns.x %}")),
        (
            "text doubled by a captured block",
            doubled("{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}"),
        ),
        ("text doubled by replace", doubled("{% set ns.x = ns.x | replace('b', ns.x) %}")),
        ("text doubled by join", doubled("{% set ns.x = [ns.x, ns.x] | join(ns.x) %}")),
        (
            "text doubled by format of a list",
            doubled("{% set ns.l = [ns.l, ns.l] %}{% set ns.x = ns.l | string %}"),
        ),
        ("list doubled by +", doubled("{% set ns.l = ns.l + ns.l %}")),
        ("list in itself, twice, written", doubled("{% set ns.l = [ns.l, ns.l] %}") + "{{ ns.l }}"),
        (
            "list in itself, twice, as JSON",
            doubled("{% set ns.l = [ns.l, ns.l] %}") + "{{ ns.l | tojson }}",
        ),
        (
            "two lists in themselves, compared",
            "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(60) %}\
                 {% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}\
                 {{ ns.a == ns.b }}"
                .into(),
        ),
        (
            "list nested without end",
            "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}\
             {% endfor %}"
                .into(),
        ),
        ("text times 1e9", "{{ 'a' * 1000000000 }}".into()),
        ("text times 1e18", "{{ 'abc' * 1000000000000000000 }}".into()),
        ("list times 1e18", "{{ [1, 2] * 1000000000000000000 }}".into()),
        ("indent by 1e9", "{{ 'a\nb' | indent(1000000000) }}".into()),
        ("indent by 1e18", "{{ 'a\nb' | indent(1000000000000000000) }}".into()),
        ("JSON indented by 1e9", "{{ [[1]] | tojson(indent=1000000000) }}".into()),
        (
            "17 MiB of text",
            format!("{{% for i in range(17408) %}}{}{{% endfor %}}", "x".repeat(1024)),
        ),
        (
            "search in a long text, often",
            "{% set x = 'a' * 20000000 %}{% for i in range(100000) %}{% if 'b' in x %}{% endif %}\
             {% endfor %}"
                .into(),
        ),
        (
            "length of a long text, often",
            "{% set x = 'é' * 20000000 %}{% for i in range(100000) %}{% if x | length %}\
             {% endif %}{% endfor %}"
                .into(),
        ),
        (
            "slice of a long text, often",
            "{% set x = 'é' * 5000000 %}{% for i in range(100000) %}{% set y = x[1:2] %}\
             {% endfor %}"
                .into(),
        ),
        (
            "strip by a long set",
            "{% set x = 'a' * 1000000 %}{{ x.strip(('b' * 1000000) ~ 'a') }}".into(),
        ),
        (
            "key of a long text, often",
            "{% set k = 'a' * 20000000 %}{% for i in range(100000) %}{% if messages[0][k] %}\
             {% endif %}{% endfor %}"
                .into(),
        ),
        (
            "many keys",
            format!(
                "{{% set d = {{ {} }} %}}",
                (0..30000).map(|i| format!("'{i}':1")).collect::<Vec<_>>().join(",")
            ),
        ),
        (
            "brackets nested 10,000 deep",
            format!("{{{{ {}{} }}}}", "(".repeat(10_000), ")".repeat(10_000)),
        ),
        (
            "lists nested 100,000 deep",
            format!("{{{{ {}{} }}}}", "[".repeat(100_000), "]".repeat(100_000)),
        ),
        ("not, 50,000 times", format!("{{{{ {}1 }}}}", "not ".repeat(50_000))),
        ("minus, 100,000 times", format!("{{{{ {}1 }}}}", "-".repeat(100_000))),
        ("conditions nested 10,000 deep", format!("{{{{ {}1 }}}}", "1 if 0 else ".repeat(10_000))),
        ("if, 10,000 deep", "{% if 1 %}".repeat(10_000) + &"{% endif %}".repeat(10_000)),
        ("for, 5,000 deep", "{% for x in [1] %}".repeat(5000) + &"{% endfor %}".repeat(5000)),
        ("a source that is too long", "x".repeat((256 << 10) + 1)),
    ]
}

/// Templates that ask for what is not theirs, or make no sense.
fn forbidden() -> Vec<(&'static str, String)> {
    [
        ("class of a string", "{{ ''.__class__ }}"),
        ("classes of a string", "{{ ''.__class__.__mro__[1].__subclasses__() }}"),
        ("class by index", "{{ ''['__class__'] }}"),
        ("class of a message", "{{ messages[0].__class__ }}"),
        ("class by attr", "{{ '' | attr('__class__') }}"),
        ("class by map", "{{ [''] | map(attribute='__class__') | list }}"),
        ("class by map, with a path", "{{ messages | map(attribute='role.__class__') | list }}"),
        ("class by selectattr", "{{ [''] | selectattr('__class__') | list }}"),
        ("class by format", "{{ '{0.__class__}'.format('') }}"),
        ("globals of a function", "{{ range.__globals__ }}"),
        ("globals of a macro", "{% macro f() %}{% endmacro %}{{ f.__globals__ }}"),
        ("globals of the namespace", "{{ namespace.__init__.__globals__ }}"),
        ("cycler of Jinja", "{{ cycler.__init__.__globals__.os.popen('id').read() }}"),
        ("lipsum of Jinja", "{{ lipsum.__globals__['os'] }}"),
        ("self", "{{ self._TemplateReference__context }}"),
        ("config", "{{ config.items() }}"),
        ("import", "{% import 'os' as os %}"),
        ("from import", "{% from 'x' import y %}"),
        ("include of a file", "{% include '/etc/passwd' %}"),
        ("extends", "{% extends 'x' %}"),
        ("block", "{% block x %}{% endblock %}"),
        ("recursive loop", "{% for x in [[1]] recursive %}{{ loop(x) }}{% endfor %}"),
        ("append", "{{ messages.append(1) }}"),
        ("pop in do", "{% do messages.pop() %}"),
        ("update of a message", "{{ messages[0].update({'role': 'x'}) }}"),
        ("attribute of a message", "{% set messages[0].role = 1 %}"),
        ("attribute of no namespace", "{% set messages.x = 1 %}"),
        ("namespace in itself", "{% set ns = namespace() %}{% set ns.x = ns %}"),
        ("namespace in a list", "{% set ns = namespace() %}{% set ns.x = [ns] %}"),
        ("macro in a list", "{% macro f() %}{% endmacro %}{{ [f] }}"),
        ("loop in a list", "{% for x in [1] %}{% set y = [loop] %}{% endfor %}"),
        ("what the template raises", "{{ raise_exception('no') }}"),
        ("division by zero", "{{ 1 // 0 }}"),
        ("remainder by zero", "{{ 1 % 0 }}"),
        ("a number too large", "{{ 9223372036854775807 + 1 }}"),
        ("a power too large", "{{ 10 ** 10 ** 10 }}"),
        ("the smallest number negated", "{{ -(-9223372036854775807 - 1) }}"),
        ("the smallest number divided by -1", "{{ (-9223372036854775807 - 1) // -1 }}"),
        ("a constant too large", "{{ 99999999999999999999 }}"),
        ("a slice of step 0", "{{ 'abc'[::0] }}"),
        ("a range of step 0", "{{ range(1, 2, 0) }}"),
        ("a dict as key", "{{ {{}: 1} }}"),
        ("numbers and strings in order", "{{ [1, 'a'] | sort }}"),
        ("lists in order", "{{ [[1], [2]] | sort }}"),
        ("an unknown filter", "{{ 1 | nothing }}"),
        ("an unknown test", "{{ 1 is nothing_at_all }}"),
        ("too many arguments", "{{ 'a' | upper(1, 2, 3) }}"),
        ("a named argument that is not known", "{{ 'a' | trim(what=1) }}"),
        ("a macro with too many arguments", "{% macro f() %}{% endmacro %}{{ f(1) }}"),
        ("a tag that is not closed", "{{ 1"),
        ("a block that is not closed", "{% if 1 %}x"),
        ("an end without a start", "{% endif %}"),
        ("the wrong end", "{% if 1 %}{% endfor %}"),
        ("a comment that is not closed", "{# x"),
        ("a raw block that is not closed", "{% raw %}{{ x }}"),
        ("a string that is not closed", "{{ 'x }}"),
        ("a broken escape", r"{{ '\ud800' }}"),
        ("break outside of a loop", "{% break %}"),
        (
            "continue out of a capture",
            "{% for i in [1] %}{% set x %}{% continue %}{% endset %}{% endfor %}",
        ),
        ("a character that means nothing", "{{ 1 $ 2 }}"),
        ("an unknown statement", "{% exec 'rm' %}"),
        ("unpacking", "{{ range(*[1, 2]) }}"),
    ]
    .into_iter()
    .map(|(name, template)| (name, template.to_string()))
    .collect()
}

#[test]
fn limits_end_a_template_in_time() {
    let cases = exhausting();
    assert!(cases.len() >= 25);
    for (name, template) in cases {
        match rendered(template) {
            Err(error @ Error::Template { fuel: true, .. }) => {
                assert_eq!(error.code(), "ERR_TEMPLATE_FUEL")
            }
            other => panic!("{name}: {:?}", other.map(|text| text.len())),
        }
    }
}

#[test]
fn nothing_but_data_is_reached() {
    let cases = forbidden();
    assert!(cases.len() >= 25);
    for (name, template) in cases {
        match rendered(template) {
            Err(error @ Error::Template { fuel: false, .. }) => {
                assert_eq!(error.code(), "ERR_TEMPLATE", "{name}")
            }
            other => panic!("{name}: {other:?}"),
        }
    }
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
