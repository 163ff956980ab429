//! Templates that want more than they get, or something that is not theirs: each ends soon, with a
//! typed error, and nothing but text comes out.

use crate::thread_time;
use halfstep_formats::Error;
use halfstep_formats::template::{Message, render};
use proptest::prelude::*;
use std::time::Duration;

/// Four times the 250 ms in which a template ends, for slower machines.
const TIME: Duration = Duration::from_secs(1);
/// Less than the stack of a browser's module.
const STACK: usize = 512 << 10;

fn messages() -> Vec<Message> {
    ["system", "user", "assistant", "user"]
        .into_iter()
        .map(|role| Message { role: role.into(), content: format!("I am {role}.") })
        .collect()
}

/// Renders on a small stack.
fn rendered(template: String) -> Result<String, Error> {
    timed(&template).0
}

/// The same with the time that it took.
fn timed(template: &str) -> (Result<String, Error>, Duration) {
    let (template, thread) = (template.to_string(), std::thread::Builder::new().stack_size(STACK));
    thread
        .spawn(move || thread_time::timed(|| render(&template, &messages(), true, "<s>", "</s>")))
        .expect("a thread")
        .join()
        .expect("no panic")
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
        (
            "lists in lists, in order",
            doubled("{% set ns.l = [ns.l, ns.l] %}") + "{{ [ns.l, ns.l] | sort }}",
        ),
        ("format as wide as a terabyte", "{{ '{:1000000000000}'.format(1) }}".into()),
        ("format as wide as another value", "{{ '{:{}}'.format('a', 10 ** 12) }}".into()),
        ("format of a text in itself", doubled("{% set ns.x = '{0}{0}'.format(ns.x) %}")),
        (
            "format of a list in itself",
            doubled("{% set ns.l = [ns.l, ns.l] %}") + "{{ '{!r}'.format(ns.l) }}",
        ),
        (
            "format of many digits, often",
            "{% for i in range(99999) %}{% set x = '{:.1000f}'.format(1e308) %}{% endfor %}"
                .into(),
        ),
        (
            "rounding to many digits, often",
            "{% for i in range(99999) %}{% set x = 1e308 | round(300) %}{% set x = 1e-308 | \
             round(300) %}{% endfor %}"
                .into(),
        ),
        ("percent as wide as a terabyte", "{{ '%1000000000000d' % 1 }}".into()),
        ("percent as wide as another value", "{{ '%*d' % (10 ** 12, 1) }}".into()),
        ("percent of a text in itself", doubled("{% set ns.x = '%s%s' % (ns.x, ns.x) %}")),
        ("centred in a terabyte", "{{ 'a'.center(10 ** 12) }}".into()),
        ("filled up to a terabyte", "{{ 'a'.ljust(10 ** 12, 'é') }}".into()),
        ("zeros up to a terabyte", "{{ '-1'.zfill(10 ** 12) }}".into()),
        ("tabs of a terabyte", "{{ '\t'.expandtabs(10 ** 12) }}".into()),
        ("batches of a terabyte", "{{ [1] | batch(10 ** 12, 0) | list }}".into()),
        ("a terabyte of slices", "{{ [1] | slice(10 ** 12) | list }}".into()),
        (
            "arguments doubled",
            "{% macro f() %}{{ f(*(varargs + varargs)) }}{% endmacro %}{{ f(1, 2) }}".into(),
        ),
        (
            "entries of a dict, again and again",
            "{% set ns = namespace(d={}) %}{% for i in range(99999) %}{% set ns.d = dict(ns.d, \
             **{'k' ~ i: i}) %}{% endfor %}"
                .into(),
        ),
        (
            "text doubled by escapes",
            doubled("{% set ns.x = (ns.x ~ '&') | e | string %}{% set ns.x = ns.x ~ ns.x %}"),
        ),
        (
            "text doubled by URL escapes",
            doubled("{% set ns.x = (ns.x ~ ' ') | urlencode %}{% set ns.x = ns.x ~ ns.x %}"),
        ),
        (
            "JSON in JSON, as ASCII",
            doubled(
                "{% set ns.x = ns.x ~ 'é' %}{% set ns.x = ns.x | tojson(true) %}\
                 {% set ns.x = ns.x ~ ns.x %}",
            ),
        ),
        (
            "JSON with a long separator",
            "{% set s = 'a' * 9999 %}{{ (range(99999) | list) | tojson(separators=(s, s)) }}"
                .into(),
        ),
        (
            "JSON indented by a long text",
            "{% set s = 'a' * 999999 %}{{ [[[[[[1, 2], 3], 4], 5], 6], 7] | tojson(indent=s) }}{{ \
             [[[[[[1, 2], 3], 4], 5], 6], 7] | tojson(indent=s) }}"
                .into(),
        ),
        ("dates of a long format", "{{ strftime_now('%j%A' * 9999999) }}".into()),
        ("characters that are joined", "{{ ','.join('a' * 30000000) }}".into()),
        (
            "characters that are looked at, often",
            "{% set x = 'é' * 9999999 %}{% for i in range(9999) %}{% if x.isalnum() %}{% endif \
             %}{% endfor %}"
                .into(),
        ),
        ("different numbers", "{{ range(99999) | unique | list | length }}".into()),
        (
            "groups of everything",
            "{% for i in range(999) %}{% set x = messages | groupby('role') %}{% endfor %}{% for i \
             in range(9999) %}{% set x = range(999) | map('string') | sort %}{% endfor %}"
                .into(),
        ),
        (
            "parts of a long text, often",
            "{% set x = 'a b' * 9999 %}{% for i in range(9999) %}{% set y = x.partition('c') %}{% \
             set y = x.rsplit('b', 1) %}{% endfor %}"
                .into(),
        ),
        (
            "the second run of a template for tools",
            "{% for i in range(4000000) %}{% endfor %}{% for t in tools %}{% endfor %}"
                .into(),
        ),
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
        ("dicts in order", "{{ [{}, {'a': 1}] | sort }}"),
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
        ("unpacking of a number", "{{ range(*5) }}"),
        ("unpacking of names that are no strings", "{{ dict(**{1: 2}) }}"),
        ("a format with a field that is not there", "{{ '{} {}'.format(1) }}"),
        ("a format that is not closed", "{{ '{'.format(1) }}"),
        ("a format with both kinds of fields", "{{ '{} {0}'.format(1) }}"),
        ("a format of fields within fields", "{{ '{:{:{}}}'.format(1, 2, 3) }}"),
        ("a format of a million digits", "{{ '{:.1000000}'.format(1.5) }}"),
        ("a format of too many values", "{{ '%s' % (1, 2) }}"),
        ("a format that ends in a percent sign", "{{ '%' % 1 }}"),
        ("batches of none", "{{ [1] | batch(0) | list }}"),
        ("a text to a generator", "{{ messages | map(attribute='role') | tojson }}"),
    ]
    .into_iter()
    .map(|(name, template)| (name, template.to_string()))
    .collect()
}

/// What is known to have opened a sandbox of Jinja or of a program that renders chat templates.
const INJECTIONS: &[(&str, &str)] = &[
    (
        "subclasses of object",
        "{{ \
         ''.__class__.__mro__[1].__subclasses__()[104].__init__.__globals__['os'].popen('id') \
         }}",
    ),
    (
        "CVE-2024-34359, CVE-2026-5760: a class that imports",
        "{% for x in ().__class__.__base__.__subclasses__() %}{% if 'warning' in x.__name__ %}\
         {{ x()._module.__builtins__['__import__']('os').popen('id').read() }}{% endif %}\
         {% endfor %}",
    ),
    ("cycler", "{{ cycler.__init__.__globals__.os.popen('id').read() }}"),
    ("joiner", "{{ joiner.__init__.__globals__.os.popen('id').read() }}"),
    ("namespace", "{{ namespace.__init__.__globals__.os.popen('id').read() }}"),
    ("lipsum", "{{ lipsum.__globals__['os'].popen('id').read() }}"),
    ("the template itself", "{{ self.__init__.__globals__.__builtins__ }}"),
    ("the context of the template", "{{ self._TemplateReference__context.cycler.__init__ }}"),
    ("the function that raises", "{{ raise_exception.__globals__['__builtins__'] }}"),
    ("the clock", "{{ strftime_now.__self__ }}"),
    ("dict", "{{ dict.__base__.__subclasses__() }}"),
    ("a macro", "{% macro f() %}{% endmacro %}{{ f.__init__.__globals__ }}"),
    (
        "a caller",
        "{% macro f() %}{{ caller.__globals__ }}{% endmacro %}{% call f() %}{% endcall %}",
    ),
    ("a loop", "{% for x in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}"),
    ("a generator's frame", "{{ (messages | map('upper')).gi_frame.f_back.f_globals }}"),
    ("a method's object", "{{ ''.join.__self__.__class__ }}"),
    ("an attribute spelled by escapes", r"{{ ''['\x5f\x5fclass\x5f\x5f'] }}"),
    ("an attribute put together", "{{ ''['__cla' ~ 'ss__'] }}"),
    ("the filter attr", r"{{ '' | attr('\u005f\u005fclass\u005f\u005f') }}"),
    ("the filter map with attr", "{{ [''] | map('attr', '__class__') | list }}"),
    ("the filter sort with a path", "{{ messages | sort(attribute='role.__class__') }}"),
    ("the filter groupby with a path", "{{ messages | groupby('__class__') }}"),
    ("the filter sum with a path", "{{ messages | sum('__class__') }}"),
    ("CVE-2016-10745: format", "{{ '{0.__class__.__init__.__globals__}'.format(range) }}"),
    ("CVE-2019-10906: format_map", "{{ '{x.__class__}'.format_map({'x': ''}) }}"),
    ("CVE-2024-56326: format by another name", "{% set f = '{0.__class__}'.format %}{{ f('') }}"),
    ("CVE-2025-27516: format by attr", "{{ ('{0.__class__}' | attr('format'))('') }}"),
    ("format with a key", "{{ '{0[__class__]}'.format('') }}"),
    ("format of a safe text", "{{ ('{0.__class__}' | safe).format('') }}"),
    ("percent with a name", "{{ '%(__class__)s' % messages[0] }}"),
    ("CVE-2024-22195: xmlattr", "{{ {'a onload=x': 1} | xmlattr }}"),
    ("names of Flask", "{{ url_for.__globals__['current_app'].config }}"),
    ("a request of Flask", "{{ request | attr('application') | attr('__globals__') }}"),
    ("a configuration of Flask", "{{ config.from_pyfile('/etc/passwd') }}"),
    ("an include", "{% include '/etc/passwd' %}"),
    ("an import", "{% import 'os' as os %}{{ os.system('id') }}"),
    ("a parent", "{% extends '../../../etc/passwd' %}"),
    ("a name in a namespace", "{% set ns = namespace(__class__=1) %}{{ ns }}"),
    ("a name set in a namespace", "{% set ns = namespace() %}{% set ns.__class__ = 1 %}"),
    ("a name unpacked into a namespace", "{% set ns = namespace(**{'__init__': 1}) %}"),
    ("a message that is changed", "{% set _ = messages[0].update({'content': 'x'}) %}"),
    ("a list that is changed", "{% set _ = messages.append({'role': 'x'}) %}"),
    ("a method that changes, taken first", "{% set f = messages.append %}{{ f(1) }}"),
    ("constructors of JavaScript", "{{ messages.constructor.constructor('return process')() }}"),
    ("prototypes of JavaScript", "{{ messages['__proto__'] }}"),
];

#[test]
fn injections_reach_nothing() {
    assert!(INJECTIONS.len() >= 25);
    for (name, template) in INJECTIONS {
        match rendered(template.to_string()) {
            Err(error @ Error::Template { fuel: false, .. }) => {
                assert_eq!(error.code(), "ERR_TEMPLATE", "{name}")
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    println!("{0} of {0} injections refused", INJECTIONS.len());
    // What a message says is never read as a template.
    for (name, template) in INJECTIONS {
        let message = Message { role: "user".into(), content: template.to_string() };
        let source =
            "{{ messages[0].content }}{% set x %}{{ messages[0].content }}{% endset %}{{ x }}";
        let text = render(source, &[message], true, "", "").expect("renders");
        assert_eq!(text, template.repeat(2), "{name}");
    }
}

#[test]
fn limits_end_a_template_in_time() {
    let cases = exhausting();
    assert!(cases.len() >= 70);
    let mut times = vec![];
    for (name, template) in &cases {
        let (result, time) = timed(template);
        match result {
            Err(error @ Error::Template { fuel: true, .. }) => {
                assert_eq!(error.code(), "ERR_TEMPLATE_FUEL")
            }
            other => panic!("{name}: {:?}", other.map(|text| text.len())),
        }
        times.push((time, name));
    }
    times.sort();
    times.reverse();
    let (time, name) = times[0];
    println!("{} templates end at a limit, the slowest ({name}) after {time:.0?}", cases.len());
    times.retain(|(time, _)| *time >= TIME);
    assert!(times.is_empty(), "{times:.0?}");
}

/// Just within a limit a template is rendered, just beyond it is not.
#[test]
fn limits_are_where_they_are_said_to_be() {
    let lists = |depth: usize| {
        format!(
            "{{% set ns = namespace(l=[]) %}}{{% for i in range({}) %}}{{% set ns.l = [ns.l] \
             %}}{{% endfor %}}x",
            depth - 1
        )
    };
    let macros = |depth: usize| {
        format!(
            "{{% macro f(n) %}}{{% if n %}}{{{{ f(n - 1) }}}}{{% endif %}}{{% endmacro %}}{{{{ \
             f({}) }}}}x",
            depth - 1
        )
    };
    let brackets = |depth: usize| format!("{{{{ {}1{} }}}}", "(".repeat(depth), ")".repeat(depth));
    let output = |end: &str| {
        format!(
            "{{% set x = 'x' * 4194304 %}}{{% for i in range(4) %}}{{{{ x }}}}{{% endfor %}}{end}"
        )
    };
    let steps = |side: usize| {
        format!(
            "{{% set r = range({side}) %}}{{% for a in r %}}{{% for b in r %}}{{% endfor %}}\
             {{% endfor %}}x"
        )
    };
    let cases = [
        ("source", "x".repeat(256 << 10), "x".repeat((256 << 10) + 1)),
        ("output", output(""), output("x")),
        ("lists in lists", lists(64), lists(65)),
        ("macros in macros", macros(64), macros(65)),
        // The innermost and the outermost expression are levels too.
        ("brackets", brackets(63), brackets(64)),
        ("steps", steps(500), steps(3000)),
    ];
    for (name, within, beyond) in cases {
        let result = rendered(within);
        assert!(result.as_ref().is_ok_and(|text| !text.is_empty()), "{name}: {:?}", result.err());
        match rendered(beyond) {
            Err(Error::Template { fuel: true, .. }) => {}
            other => panic!("{name}: {:?}", other.map(|text| text.len())),
        }
    }
}

#[test]
fn nothing_but_data_is_reached() {
    let cases = forbidden();
    assert!(cases.len() >= 25);
    for (name, template) in &cases {
        match rendered(template.clone()) {
            Err(error @ Error::Template { fuel: false, .. }) => {
                assert_eq!(error.code(), "ERR_TEMPLATE", "{name}")
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    println!("{0} of {0} templates refused", cases.len());
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
    "|e",
    "|safe",
    "|items",
    "|groupby('role')",
    "|batch(2)",
    "|format(1)",
    ".format(1)",
    ".get",
    "'{} {:5.1f}'",
    "'%s %5.1f'",
    "(1, 2)",
    "*[1]",
    "**{'a': 1}",
    "varargs",
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
