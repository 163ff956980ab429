//! Chat templates give the text that Jinja2 gives them with the settings of transformers
//! (template/cases.json, made by template/make.py).

use halfstep_formats::template::{Message, render, render_with};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    template: String,
    messages: Vec<Message>,
    prompt: bool,
    text: Option<String>,
}

#[test]
fn texts_are_those_of_jinja() {
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("template/cases.json")).expect("cases");
    let texts = cases.iter().filter(|case| case.text.is_some()).count();
    assert!(texts >= 100 && cases.len() > texts, "{texts} of {}", cases.len());
    for case in cases {
        match (render(&case.template, &case.messages, case.prompt, "<s>", "</s>"), case.text) {
            (Ok(text), Some(expected)) => assert_eq!(text, expected, "{}", case.template),
            (Err(error), None) => assert_eq!(error.code(), "ERR_TEMPLATE", "{}", case.template),
            (Ok(text), None) => panic!("{}: Jinja raises, we write {text:?}", case.template),
            (Err(error), Some(_)) => panic!("{}: {error}", case.template),
        }
    }
}

/// The date of the machine, for templates that put it into the system message; those that ask first
/// whether there is a clock get the same.
#[test]
fn a_template_may_ask_for_the_date() {
    let template = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}26 Jul \
                    2024{% endif %}";
    let text = render(template, &[], false, "", "").expect("renders");
    let [day, month, year] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert!(
        day.len() == 2 && month.len() == 3 && year.parse::<u32>().expect("a year") >= 2024,
        "{text}"
    );
}

#[derive(Deserialize)]
struct Language {
    now: u64,
    /// JSON.
    variables: String,
    cases: Vec<Piece>,
}

#[derive(Deserialize)]
struct Piece {
    template: String,
    text: Option<String>,
}

/// Every construct, filter, test and method alone: expressions.txt and statements.txt.
#[test]
fn the_language_is_that_of_jinja() {
    let language: Language =
        serde_json::from_str(include_str!("template/language.json")).expect("cases");
    let (mut equal, mut refused, mut wrong) = (0, 0, vec![]);
    for Piece { template, text } in &language.cases {
        match (render_with(template, &language.variables, Some(language.now)), text) {
            (Ok(own), Some(text)) if own == *text => equal += 1,
            (Err(error), None) if error.code() == "ERR_TEMPLATE" => refused += 1,
            (own, text) => wrong.push(format!("{template}: {own:?}, Jinja gives {text:?}")),
        }
    }
    println!("{equal} of {} texts equal, {refused} refused by both", language.cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(equal >= 480 && refused >= 80, "{equal} and {refused}");
}
