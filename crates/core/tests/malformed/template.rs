//! Chat templates: those that want more than they get, and those that ask for what is not theirs.

use super::{Case, of_bytes};
use halfstep_formats::template::{Message, render};

pub fn cases() -> Vec<Case> {
    let of = |code, cases: Vec<(&'static str, String)>| {
        cases.into_iter().map(move |(name, template)| (name, template.into_bytes(), code, ""))
    };
    let all = of("ERR_TEMPLATE_FUEL", exhausting()).chain(of("ERR_TEMPLATE", forbidden()));
    of_bytes(all, |bytes| {
        let template = std::str::from_utf8(bytes).expect("templates are text");
        render(template, &messages(), true, "<s>", "</s>")?;
        Ok(())
    })
}

fn messages() -> Vec<Message> {
    ["system", "user", "assistant", "user"]
        .into_iter()
        .map(|role| Message { role: role.into(), content: format!("I am {role}.") })
        .collect()
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
        ("CVE-2024-34359: classes of a string", "{{ ''.__class__.__mro__[1].__subclasses__() }}"),
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
        (
            "CVE-2026-5760: cycler of Jinja",
            "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        ),
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
    ]
    .into_iter()
    .map(|(name, template)| (name, template.to_string()))
    .collect()
}
